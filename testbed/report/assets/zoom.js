// The stretch of time that all plots, the ladder and the list of events show.

/** Before the first segment and the first event there is nothing to see, and a short transfer would stand in a corner. */
function firstSeen() {
  const times = [...D.connections.map(({begins}) => begins), ...(D.placed ? D.events.map(({done}) => done) : [])];
  const first = times.reduce((least, t) => t === NONE ? least : Math.min(least, t), D.seconds);
  return first > 0.1 * D.seconds && first < D.seconds ? first - 0.05 * (D.seconds - first) : 0;
}

const zoom = {
  first: firstSeen(),
  last: Math.max(D.seconds, 1e-3),
  least: 2e-5,  // seconds: traces are read in microseconds
  min: 0,
  max: 1,
  followers: new Set(),

  set(min, max) {
    const widest = this.last - this.first, width = Math.min(Math.max(max - min, this.least), widest);
    if (width > max - min) min -= (width - (max - min)) / 2;
    min = Math.min(Math.max(min, this.first), this.last - width);
    if (min === this.min && min + width === this.max) return;
    this.min = min;
    this.max = min + width;
    for (const follower of this.followers) follower();
  },
  reset() { this.set(this.first, this.last); },
  pan(share) { const by = (this.max - this.min) * share; this.set(this.min + by, this.max + by); },
  by(factor, at = (this.min + this.max) / 2) {
    this.set(at - (at - this.min) * factor, at + (this.max - at) * factor);
  },
  around(t, width) { this.set(t - width / 2, t + width / 2); },
};

function zoomKeys(event) {
  const does = {
    ArrowLeft: () => zoom.pan(-0.2), ArrowRight: () => zoom.pan(0.2), "+": () => zoom.by(0.5), "=": () => zoom.by(0.5),
    "-": () => zoom.by(2), 0: () => zoom.reset(), Escape: () => zoom.reset(),
  }[event.key];
  if (!does || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  does();
}

/** A time, with as many digits as what is shown needs. */
const fixed = (t) => t.toFixed(Math.max(3, Math.min(6, 3 - Math.floor(Math.log10(zoom.max - zoom.min)))));

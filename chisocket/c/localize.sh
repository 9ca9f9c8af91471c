#!/bin/sh
# localize.sh LD OBJCOPY AR IN.a OUT.a: one archive in which only what the headers declare can be seen, as in the shared
# library: else each name of our inside would be taken in every program that is linked with it.
set -eu
rm -f "$5" "$5.o"
"$1" -r -o "$5.o" --whole-archive "$4"
"$2" --localize-hidden "$5.o"
"$3" rcs "$5" "$5.o"
rm "$5.o"

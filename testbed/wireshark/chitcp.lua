-- A Wireshark dissector for what chitcpds say to each other: TCP segments behind a header of 16 bytes, back to back
-- on a real TCP connection to port 23300. `testbed dissector --install` puts it where Wireshark looks for it.
--
-- The segments have fields of our own, chitcp.tcp.*: so a filter never mistakes them for those of the real TCP. Other
-- ports: "Decode As..." in Wireshark, or tshark -d tcp.port==PORT,chitcp.

local PORT = 23300
local HEADER, SEGMENT = 16, 20 -- bytes: the chiTCP header, and the least that a TCP header has
local TCP, RAW, PROBE = 1, 2, 254 -- protocols
local LONGEST_LIST = 10 -- segments of one packet that its line in the list tells of

local chitcp = Proto("chitcp", "chiTCP")

local protocols = { [TCP] = "TCP", [RAW] = "RAW", [PROBE] = "probe of a link" }
local probes = { [1] = "echo", [2] = "reply", [3] = "train", [4] = "report" }

local f = {
    length = ProtoField.uint16("chitcp.length", "Payload length", base.DEC, nil, nil, "Bytes behind this header"),
    proto = ProtoField.uint8("chitcp.proto", "Protocol", base.DEC, protocols),
    flags = ProtoField.uint8("chitcp.flags", "Flags", base.HEX),
    routed = ProtoField.bool("chitcp.flags.routed", "Routed", 8, nil, 0x80),
    route_source = ProtoField.ipv4("chitcp.route.source", "Source"),
    route_destination = ProtoField.ipv4("chitcp.route.destination", "Destination"),
    route_routers = ProtoField.uint8("chitcp.route.routers", "Routers that it may still pass"),
    payload = ProtoField.bytes("chitcp.payload", "Payload"),
    source_port = ProtoField.uint16("chitcp.tcp.srcport", "Source port", base.DEC),
    destination_port = ProtoField.uint16("chitcp.tcp.dstport", "Destination port", base.DEC),
    port = ProtoField.uint16("chitcp.tcp.port", "Source or destination port", base.DEC),
    seq = ProtoField.uint32("chitcp.tcp.seq", "Sequence number", base.DEC),
    ack = ProtoField.uint32("chitcp.tcp.ack", "Acknowledgement number", base.DEC),
    hdr_len = ProtoField.uint8("chitcp.tcp.hdr_len", "Header length", base.DEC),
    tcp_flags = ProtoField.uint8("chitcp.tcp.flags", "Flags", base.HEX),
    urg = ProtoField.bool("chitcp.tcp.flags.urg", "URG", 8, nil, 0x20),
    ack_flag = ProtoField.bool("chitcp.tcp.flags.ack", "ACK", 8, nil, 0x10),
    psh = ProtoField.bool("chitcp.tcp.flags.psh", "PSH", 8, nil, 0x08),
    rst = ProtoField.bool("chitcp.tcp.flags.rst", "RST", 8, nil, 0x04),
    syn = ProtoField.bool("chitcp.tcp.flags.syn", "SYN", 8, nil, 0x02),
    fin = ProtoField.bool("chitcp.tcp.flags.fin", "FIN", 8, nil, 0x01),
    window = ProtoField.uint16("chitcp.tcp.window", "Window", base.DEC, nil, nil, "As in the header: not scaled"),
    checksum = ProtoField.uint16("chitcp.tcp.checksum", "Checksum", base.HEX, nil, nil, "0: not computed"),
    urgent = ProtoField.uint16("chitcp.tcp.urgent_pointer", "Urgent pointer", base.DEC),
    mss = ProtoField.uint16("chitcp.tcp.options.mss", "Maximum segment size", base.DEC),
    wscale = ProtoField.uint8("chitcp.tcp.options.wscale", "Window scale", base.DEC),
    sack_perm = ProtoField.none("chitcp.tcp.options.sack_perm", "SACK permitted"),
    tsval = ProtoField.uint32("chitcp.tcp.options.tsval", "Timestamp value", base.DEC),
    tsecr = ProtoField.uint32("chitcp.tcp.options.tsecr", "Timestamp echo reply", base.DEC),
    sack_le = ProtoField.uint32("chitcp.tcp.options.sack_le", "SACK: first byte", base.DEC),
    sack_re = ProtoField.uint32("chitcp.tcp.options.sack_re", "SACK: behind the last byte", base.DEC),
    option = ProtoField.bytes("chitcp.tcp.options.other", "Another option"),
    len = ProtoField.uint32("chitcp.tcp.len", "Data length", base.DEC),
    data = ProtoField.bytes("chitcp.tcp.payload", "Data"),
    probe_kind = ProtoField.uint8("chitcp.probe.kind", "Probe", base.DEC, probes),
    probe_number = ProtoField.uint32("chitcp.probe.number", "Number", base.DEC),
}
for _, field in pairs(f) do
    table.insert(chitcp.fields, field)
end

local e = {
    header = ProtoExpert.new("chitcp.bad_header", "No chiTCP header: a chitcpd would drop the connection",
        expert.group.MALFORMED, expert.severity.ERROR),
    offset = ProtoExpert.new("chitcp.tcp.bad_offset", "A data offset that the segment has no room for",
        expert.group.MALFORMED, expert.severity.ERROR),
    option = ProtoExpert.new("chitcp.tcp.bad_option", "An option that is not as long as it says",
        expert.group.MALFORMED, expert.severity.WARN),
    short = ProtoExpert.new("chitcp.cut_off", "The capture has not all of it",
        expert.group.UNDECODED, expert.severity.NOTE),
}
for _, one in pairs(e) do
    table.insert(chitcp.experts, one)
end

-- Whether this can be a header: chitcpd drops a connection on which comes anything else (or RAW, which nobody sends).
local function is_header(tvb, at)
    local length, proto = tvb(at, 2):uint(), tvb(at + 2, 1):uint()
    return length >= SEGMENT and (proto == TCP or proto == RAW or proto == PROBE)
end

local letters = { { 0x20, "U" }, { 0x08, "P" }, { 0x04, "R" }, { 0x02, "S" }, { 0x01, "F" }, { 0x10, "." } }

-- As tcpdump writes them.
local function flag_letters(flags)
    local text = ""
    for _, one in ipairs(letters) do
        if math.floor(flags / one[1]) % 2 == 1 then
            text = text .. one[2]
        end
    end
    return text
end

local function sack_blocks(range, tree)
    for at = 2, range:len() - 8, 8 do
        tree:add(f.sack_le, range(at, 4))
        tree:add(f.sack_re, range(at + 4, 4))
    end
end

-- Kind of an option -> how long it is, and what shows it. SACK has any number of blocks.
local options = {
    [2] = { 4, function(range, tree) tree:add(f.mss, range(2, 2)) end },
    [3] = { 3, function(range, tree) tree:add(f.wscale, range(2, 1)) end },
    [4] = { 2, function(range, tree) tree:add(f.sack_perm, range) end },
    [5] = { nil, sack_blocks },
    [8] = { 10, function(range, tree)
        tree:add(f.tsval, range(2, 4))
        tree:add(f.tsecr, range(6, 4))
    end },
}

local function show_options(range, tree)
    local at = 0
    while at < range:len() do
        local kind = range(at, 1):uint()
        if kind == 0 then
            return
        elseif kind == 1 then
            at = at + 1
        else
            local left = range:len() - at
            local length = left >= 2 and range(at + 1, 1):uint() or 0
            if length < 2 or length > left then
                tree:add_proto_expert_info(e.option)
                return
            end
            local known = options[kind]
            if known and (known[1] == length or not known[1]) then
                known[2](range(at, length), tree)
            else
                tree:add(f.option, range(at, length))
            end
            at = at + length
        end
    end
end

-- Shows a segment, of which all of the header is there, and returns it in words.
local function show_segment(range, length, tree)
    local branch = tree:add(range, "TCP segment")
    local source, destination = range(0, 2):uint(), range(2, 2):uint()
    branch:add(f.source_port, range(0, 2))
    branch:add(f.destination_port, range(2, 2))
    branch:add(f.port, range(0, 2)):set_hidden()
    branch:add(f.port, range(2, 2)):set_hidden()
    branch:add(f.seq, range(4, 4))
    branch:add(f.ack, range(8, 4))
    local header = range(12, 1):bitfield(0, 4) * 4
    branch:add(f.hdr_len, range(12, 1), header)
    local flags = branch:add(f.tcp_flags, range(13, 1), range(13, 1):bitfield(2, 6))
    for _, one in ipairs({ f.urg, f.ack_flag, f.psh, f.rst, f.syn, f.fin }) do
        flags:add(one, range(13, 1))
    end
    branch:add(f.window, range(14, 2))
    branch:add(f.checksum, range(16, 2))
    branch:add(f.urgent, range(18, 2))
    if header < SEGMENT or header > length then
        branch:add_proto_expert_info(e.offset)
        return string.format("%d > %d [a data offset of %d bytes]", source, destination, header)
    end
    if header > SEGMENT and range:len() >= header then
        show_options(range(SEGMENT, header - SEGMENT), branch)
    end
    branch:add(f.len, length - header):set_generated()
    if range:len() > header then
        branch:add(f.data, range(header))
    end
    local letters_of = flag_letters(range(13, 1):bitfield(2, 6))
    local text = string.format("%d > %d [%s] seq %d", source, destination, letters_of, range(4, 4):uint())
    if range(13, 1):bitfield(3, 1) == 1 then
        text = text .. string.format(" ack %d", range(8, 4):uint())
    end
    text = text .. string.format(" win %d len %d", range(14, 2):uint(), length - header)
    branch:append_text(": " .. text)
    return text
end

local function show_probe(range, tree)
    tree:add(f.probe_kind, range(0, 1))
    tree:add(f.probe_number, range(4, 4))
    return "probe: " .. (probes[range(0, 1):uint()] or "unknown")
end

-- Shows the header, and returns it: length and protocol.
local function show_header(tvb, tree)
    tree:add(f.length, tvb(0, 2))
    tree:add(f.proto, tvb(2, 1))
    local flags = tree:add(f.flags, tvb(3, 1))
    flags:add(f.routed, tvb(3, 1))
    if tvb(3, 1):bitfield(0, 1) == 1 then
        tree:add(f.route_source, tvb(4, 4))
        tree:add(f.route_destination, tvb(8, 4))
        tree:add(f.route_routers, tvb(12, 1))
    end
    return tvb(0, 2):uint(), tvb(2, 1):uint()
end

-- Shows one message, of so many bytes on the wire, as far as the capture has it, and returns it in words.
local function show_message(tvb, on_wire, tree)
    local there = tvb:captured_len()
    if there < on_wire then
        tree:add_proto_expert_info(e.short)
    end
    if there < HEADER then
        return "a part of a header"
    end
    local length, proto = show_header(tvb, tree)
    if not is_header(tvb, 0) then
        tree:add_proto_expert_info(e.header)
        return "no chiTCP"
    end
    length = math.min(length, on_wire - HEADER)
    local kept = math.min(there - HEADER, length)
    if kept < SEGMENT then
        return "cut off"
    end
    local range = tvb(HEADER, kept)
    if proto == TCP then
        return show_segment(range, length, tree)
    elseif proto == PROBE then
        return show_probe(range, tree)
    end
    tree:add(f.payload, range)
    return protocols[proto]
end

-- How many bytes the message at this place has, with its header; all the rest, if it is none; nil: it can't be said yet.
local function message_length(tvb, at)
    if tvb:captured_len() - at < HEADER then
        return nil
    end
    return is_header(tvb, at) and HEADER + tvb(at, 2):uint() or tvb:len() - at
end

-- Messages go on from packet to packet: what is not whole is asked for once more, with what follows. Wireshark's own
-- dissect_tcp_pdus throws an error without a text ("Lua Error: (null)") where a capture is cut or is no chiTCP.
function chitcp.dissector(tvb, pinfo, tree)
    pinfo.cols.protocol = "chiTCP"
    local told, at = {}, 0
    local can_wait = pinfo.can_desegment > 0 and tvb:captured_len() == tvb:len()
    while at < tvb:captured_len() do
        local left = tvb:len() - at
        local length = message_length(tvb, at)
        if can_wait and left < (length or HEADER) then
            pinfo.desegment_offset = at
            pinfo.desegment_len = length and length - left or DESEGMENT_ONE_MORE_SEGMENT
            break
        end
        length = math.min(length or left, left)
        local range = tvb(at, math.min(length, tvb:captured_len() - at))
        local subtree = tree:add(chitcp, range)
        local text = show_message(range:tvb(), length, subtree)
        subtree:append_text(", " .. text)
        if #told < LONGEST_LIST then
            table.insert(told, text)
        elseif told[#told] ~= "..." then
            table.insert(told, "...")
        end
        at = at + length
    end
    if #told > 0 then
        pinfo.cols.info = table.concat(told, " | ")
    end
    return tvb:len()
end

DissectorTable.get("tcp.port"):add(PORT, chitcp)

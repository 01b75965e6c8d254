# Network.

is_device(name) if regex.match(`^eth[0-9]{1,3}$`, name)

is_device_path(v) if v == ""

is_device_path(v) if bounded("pci", v)

is_prefix(v) if regex.match(`^(12[0-8]|1[01][0-9]|[1-9]?[0-9])$`, v)

UpdateInterfaceRequest if {
	i := input.interface
	is_device(i.device)
	is_device(i.name)
	every address in i.IPAddresses {
		address.family in {0, 1}
		is_remote_address(address.address)
		is_prefix(address.mask)
	}
	count(i.IPAddresses) <= 16
	i.mtu >= 576
	i.mtu <= 65535
	regex.match(`^([0-9a-f]{2}:){5}[0-9a-f]{2}$`, lower(i.hwAddr))
	i.hwAddr != "00:00:00:00:00:00"
	is_device_path(i.devicePath)
	i.type_ in {"", "veth", "device"}
	i.raw_flags in {0, 128}
}

is_network(v) if v in {"", "default", "0.0.0.0/0", "::/0"}

is_network(v) if is_remote_address(v)

is_network(v) if {
	[address, prefix] := split(v, "/")
	is_remote_address(address)
	is_prefix(prefix)
}

is_optional_address(v) if v == ""

is_optional_address(v) if is_remote_address(v)

UpdateRoutesRequest if {
	count(input.routes.Routes) <= 64
	every r in input.routes.Routes {
		is_device(r.device)
		is_network(r.dest)
		is_optional_address(r.gateway)
		is_optional_address(r.source)
		r.family in {0, 1}
		r.scope in {0, 200, 253}
		r.flags in {0, 4}
		r.mtu <= 65535
	}
}

AddARPNeighborsRequest if {
	count(input.neighbors.ARPNeighbors) <= 64
	every n in input.neighbors.ARPNeighbors {
		is_device(n.device)
		is_remote_address(n.toIPAddress.address)
		n.toIPAddress.family in {0, 1}
		n.toIPAddress.mask == ""
		regex.match(`^([0-9a-f]{2}:){5}[0-9a-f]{2}$`, lower(n.lladdr))
		n.state in {2, 128}
		n.flags in {0, 8, 128, 136}
	}
}

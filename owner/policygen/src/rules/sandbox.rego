# The sandbox.

op(path, v) := {"op": "add", "path": concat("/", array.concat(["", "pstate"], path)), "value": v}

CreateSandboxRequest := {"allowed": true, "ops": ops} if {
	not data.pstate.sandbox
	found := values(policy_data.sandbox.read, {})
	complete(policy_data.sandbox.read, found)
	input == sandbox_request(found)
	ops := [
		op(["sandbox"], input),
		op(["facts"], facts_of(policy_data.sandbox.read, found, {})),
		op(["containers"], {}),
		op(["names"], {}),
		op(["turn"], 0),
		op(["gone"], {}),
		op(["copied"], {}),
	]
}

sandbox_request(found) := object.union(filled(policy_data.sandbox.request, found), {"dns": dns})

dns := policy_data.sandbox.request.dns if not dns_from_host

dns := input.dns if dns_from_host

dns_from_host if {
	policy_data.sandbox.dns_from_host
	count(input.dns) <= 32
	every line in input.dns {
		is_resolver_line(line)
	}
}

is_resolver_line(line) if {
	startswith(line, "nameserver ")
	is_address(substring(line, 11, -1))
}

is_resolver_line(line) if {
	count(line) <= 4096
	regex.match(`^search( [A-Za-z0-9_.-]+)+$`, line)
}

is_resolver_line(line) if {
	count(line) <= 1024
	regex.match(`^options( [a-z0-9-]+(:[0-9]+)?)+$`, line)
}

DestroySandboxRequest := {"allowed": true, "ops": [op(["destroyed"], true)]}

# Values that the host chooses: where they stand in a request, and what bounds them.

# The same everywhere in the pod: the first request that has one fixes it.
pod_facts := service_facts | {"$(sandbox-id)", "$(sandbox-name)", "$(sandbox-namespace)", "$(pod-uid)", "$(node-name)",
	"$(pod-ip)", "$(pod-ips)", "$(host-ip)", "$(host-ips)", "$(pod-index)"}

service_facts := {concat("", ["$(service-ip-", format_int(i, 10), ")"]) | policy_data.services[i]}

hexadecimal := "0123456789abcdef"

is_id(v) if {
	count(v) == 64
	trim(v, hexadecimal) == ""
}

# Kinds without structure: how long, and of which characters.
plain := {
	"id": {"least": 64, "most": 64, "of": hexadecimal},
	"file": {"least": 16, "most": 16, "of": hexadecimal},
}

bounded(kind, v) if {
	k := plain[kind]
	count(v) >= k.least
	count(v) <= k.most
	trim(v, k.of) == ""
}

bounded("pci", v) if {
	count(v) >= 2
	count(v) <= 64
	trim(v, "0123456789abcdef./") == ""
	not contains(v, "..")
	not contains(v, "//")
	not startswith(v, "/")
}

bounded("cgroups", v) if {
	count(v) <= 512
	trim(v, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ._:/-") == ""
	not contains(v, "..")
	endswith(v, input.container_id)
}

bounded(kind, v) if regex.match(patterns[kind], v)

patterns := {
	"uid": `^[0-9a-z-]{1,64}$`,
	"index": `^(0|[1-9][0-9]{0,9})$`,
	"label": `^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`,
	"subdomain": `^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$`,
}

bounded("address", v) if is_address(v)

# One of each family, the second after a comma.
bounded("addresses", v) if {
	count(split(v, ",")) <= 2
	every address in split(v, ",") {
		is_address(address)
	}
}

bounded("name", v) if {
	count(v) <= 63
	regex.match(policy_data.name_pattern, v)
}

is_address(v) if {
	regex.match(`^(25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])(\.(25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])){3}$`, v)
	not startswith(v, "0.")
}

is_address(v) if {
	contains(v, ":")
	regex.match(`^[0-9a-f:]{2,39}$`, v)
}

is_remote_address(v) if {
	is_address(v)
	not startswith(v, "127.")
	not v in {"::", "::1"}
}

# The texts of the request in which values stand.
texts := {
	"Annotations": input.OCI.Annotations,
	"CgroupsPath": {"": input.OCI.Linux.CgroupsPath},
	"Env": {split(entry, "=")[0]: entry | entry := input.OCI.Process.Env[_]},
	"Hostname": {"": input.OCI.Hostname},
	"Mounts": [m.source | m := input.OCI.Mounts[_]],
	"container_id": {"": input.container_id},
	"storages": [m.source | m := input.storages[_]],
}

sandbox_texts := {"hostname": {"": input.hostname}, "sandbox_id": {"": input.sandbox_id}}

value(r, all) := v if {
	t := all[r.of][r.at]
	v := substring(t, r.skip, (count(t) - r.skip) - r.tail)
	bounded(r.kind, v)
}

# What an earlier request fixed counts, whatever stands here.
values(reads, all, fixed) := object.union({r.p: v | some r in reads; not fixed[r.p]; v := value(r, all)}, fixed)

complete(reads, found) if {
	every r in reads {
		found[r.p]
	}
}

filled(request, found) := json.unmarshal(strings.replace_n(found, json.marshal(request)))

# Values that the host chooses: where they stand in a request, and what bounds them.

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

is_plain(k, v) if {
	count(v) >= k.least
	count(v) <= k.most
	trim(v, k.of) == ""
}

bounded("pci", v) if {
	is_plain({"least": 2, "most": 64, "of": "0123456789abcdef./"}, v)
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
	not regex.match(`^0*127\.`, v)
	not regex.match(`^[0:]*(1|:0*ffff:.*)?$`, v)
}

# Where the value stands: a member of the request, or a variable of the environment.
text(r) := object.get(input, r.path, null)

text(r) := variable(r.env)

variables := concat("\u0000", array.concat([""], input.OCI.Process.Env))

# A name that is there twice has no value; what else stands in the list is compared with the whole.
variable(name) := concat("", [name, "=", split(rest, "\u0000")[0]]) if {
	[_, rest] := split(variables, concat("", ["\u0000", name, "="]))
}

value(r) := v if {
	k := plain[r.kind]
	t := object.get(input, r.path, null)
	v := substring(t, r.skip, (count(t) - r.skip) - r.tail)
	count(v) >= k.least
	count(v) <= k.most
	trim(v, k.of) == ""
}

value(r) := v if {
	not plain[r.kind]
	v := between(r)
	bounded(r.kind, v)
}

between(r) := substring(t, r.skip, (count(t) - r.skip) - r.tail) if {
	t := text(r)
}

# A value within the owner's bound may have any characters: it goes into JSON as JSON has it.
value(r) := substring(quoted, 1, count(quoted) - 2) if {
	r.within
	v := between(r)
	is_within(r.within, v)
	not contains(v, "$(")
	quoted := json.marshal(v)
}

# Patterns are anchored at both ends when the policy is made.
is_within(bound, v) if regex.match(bound.pattern, v)

is_within(bound, v) if v in bound.one_of

# What an earlier request fixed counts, whatever stands here.
values(reads, fixed) := object.union({p: v | some p, r in object.remove(reads, fixed); v := value(r)}, fixed)

complete(reads, found) if object.keys(reads) - object.keys(found) == set()

# The same everywhere in the pod: the first request that has one fixes it.
facts_of(reads, found, fixed) := object.union({p: found[p] | some p, r in object.remove(reads, fixed); r.fact}, fixed)

filled(request, found) := json.unmarshal(strings.replace_n(found, json.marshal(request)))

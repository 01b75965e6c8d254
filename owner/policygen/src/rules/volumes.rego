# Volumes of files: ConfigMaps, Secrets, downward API, tokens.

# A part of a volume that some container declares under this name. What was copied is remembered, and a container is created
# only when it is the whole of its own volumes.
CopyFileRequest := {"allowed": true, "ops": ops} if {
	not copied.late
	not turned
	is_dir_mode(input.dir_mode)
	count(fitting) > 0
	ops := array.concat(first_copy, array.concat(
		[op(["copied", token(copied.at), token(copied.path)], [remembered(e) | some e in fitting])],
		[op(["facts", e.is], behind(e)) | some e in fitting; e.is],
	))
}

# Whoever turns to another version has the guest take the files of the one before away, and they are remembered as copied.
turned if {
	copied.path == "..data"
	not version(made_here) in {"", input.symlink_target}
}

# A running container's volume follows the cluster where the owner leaves files of it to the host: what is pinned stays as it is, and
# no version counts that is not whole.
CopyFileRequest := {"allowed": true, "ops": ops} if {
	copied.late
	is_dir_mode(input.dir_mode)
	count(own_trees) > 0
	count(fitting) == count(own_trees)
	count(lacking) == 0
	ops := array.concat(late_copy, [op(["facts", e.is], behind(e)) | some e in fitting; e.is])
}

# What the container was given at this place: no other volume of the same name counts.
own_trees := [policy_data.trees[v.tree] |
	c := data.pstate.containers[copied.id]
	some v in c.volumes
	c.request.OCI.Mounts[v.mount].source == concat("", [shared_dir, copied.at])
]

may_differ(t) if t.unpinned

may_differ(t) if {
	some e in t.entries
	e.free
}

# The parts that a version still lacks when the host turns to it.
lacking := [path |
	copied.path == "..data"
	some t in own_trees
	some path, e in t.entries
	startswith(path, "$(volume-version)")
	not is_made(e, input.symlink_target, made_here[replace(path, "$(volume-version)", input.symlink_target)])
]

made_here := object.get(data.pstate.copied, copied.at, {})

# What belonged to the version before is forgotten, as the guest takes it away.
late_copy := [op(["copied", token(copied.at), token(copied.path)], [remembered(e) | some e in fitting])] if copied.path != "..data"

late_copy := [op(["copied", token(copied.at)], object.union(kept, {"..data": [remembered(e) | some e in fitting]}))] if copied.path == "..data"

kept := {path: e |
	some path, e in made_here
	not is_left(path)
}

is_left(path) if {
	version(made_here) != input.symlink_target
	split(path, "/")[0] == version(made_here)
}

# The host's part of a file, behind the owner's.
behind(e) := substring(input.data_text, count(before(e)), -1) if startswith(input.data_text, before(e))

before(e) := object.get(e, "before", "")

first_copy := [op(["copied", token(copied.at)], {}) | not data.pstate.copied[copied.at]]

# A name in a JSON pointer (RFC 6901).
token(name) := replace(replace(name, "~", "~0"), "/", "~1")

remembered(e) := {"link": input.symlink_target} if e.link

remembered(e) := e if not e.link

fitting := [e |
	some t in trees_here
	e := entry(t)
	fits(e, t.gid)
]

trees_here := [t | some t in policy_data.trees; copied.name in t.names] if not copied.late

trees_here := [t | some t in own_trees; may_differ(t)] if copied.late

entry(t) := t.entries[copied.place]

entry(t) := unpinned(t) if not t.entries[copied.place]

# What the host may add where the owner leaves the files to it: links to names in the version's folder, and what is in that.
unpinned(t) := {"link": concat("", ["..data/", copied.rest[0]])} if {
	t.unpinned
	input.file_type == "Symlink"
	count(copied.rest) == 1
	is_free_name(copied.rest[0])
}

unpinned(t) := {"folder": true} if {
	t.unpinned
	input.file_type == "Directory"
	is_free_place
}

unpinned(t) := {"mode": t.unpinned.mode, "uid": 0, "free": "unpinned"} if {
	input.file_type == "Regular"
	is_free_place
}

is_free_place if {
	is_version(copied.rest[0])
	count(copied.rest) in {2, 3, 4, 5, 6, 7, 8}
	every name in array.slice(copied.rest, 1, count(copied.rest)) {
		is_free_name(name)
	}
}

is_free_name(name) if {
	regex.match(`^[A-Za-z0-9._-]{1,253}$`, name)
	not startswith(name, "..")
}

# Without the set-user-id bit, and everybody may look into it: in a closed folder files are as good as left out.
fits(e, gid) if {
	e.folder
	input.file_type == "Directory"
	bits.and(input.file_mode, 2413) == 365
	is_empty(gid)
}

fits(e, gid) if {
	input.file_type == "Symlink"
	leads_to(e.link)
	is_empty(gid)
}

# Its owner is root, and no contents come with it.
is_empty(gid) if {
	input.uid == 0
	input.gid in {0, gid}
	input.file_size == 0
	input.offset == 0
}

leads_to(link) if {
	link == "$(volume-version)"
	is_version(input.symlink_target)
}

leads_to(link) if {
	link != "$(volume-version)"
	input.symlink_target == link
}

fits(e, gid) if {
	input.file_type == "Regular"
	input.file_mode == e.mode
	input.uid == e.uid
	input.gid == gid
	holds(e)
}

incomplete(c) := [v | some v in c.volumes; not is_whole(v)]

made_for(v) := data.pstate.copied[substring(input.OCI.Mounts[v.mount].source, count(shared_dir), -1)]

is_whole(v) if {
	t := policy_data.trees[v.tree]
	made := made_for(v)
	wanted := {replace(path, "$(volume-version)", version(made)): e | some path, e in t.entries}
	count([path | some path, e in wanted; not is_made(e, version(made), made[path])]) == 0
	has_no_more(t, wanted, made)
}

version(made) := made["..data"][0].link

version(made) := "" if not made["..data"]

is_made(e, v, entries) if object.union(e, {"link": replace(e.link, "$(volume-version)", v)}) in entries

is_made(e, _, entries) if e in entries

has_no_more(t, _, _) if t.unpinned

has_no_more(t, wanted, made) if {
	not t.unpinned
	count(wanted) == count(made)
}

# Files of the node that are copied in.

shared_dir := "/run/kata-containers/shared/containers/"

# <shared_dir><container id>-<16 hex>-<name>/<rest>: the id is at 39, the 16 digits at 104, the name at 121. The copy is for
# a container that is not created yet, or has been ("late"). Its place is the rest with the version's folder under its common name.
copied := c if {
	data.pstate.sandbox
	id := substring(input.path, 39, 64)
	is_copied_for(id)
	file := substring(input.path, 104, 16)
	is_plain(plain.file, file)
	parts := split(substring(input.path, 121, -1), "/")
	every part in parts {
		is_plain_part(part)
	}
	at := concat("-", [id, file, parts[0]])
	rest := array.slice(parts, 1, count(parts))
	input.path == concat("/", array.concat([concat("", [shared_dir, at])], rest))
	c := {
		"at": at,
		"id": id,
		"late": count([1 | data.pstate.containers[id]]) == 1,
		"name": parts[0],
		"rest": rest,
		"path": concat("/", rest),
		"place": place(rest),
	}
}

is_copied_for(id) if is_new(id)

is_copied_for(id) if data.pstate.containers[id]

# No path has the form of a placeholder.
is_plain_part(part) if {
	not part in {"", ".", ".."}
	not contains(part, "$(")
}

# The kubelet's name for a version of a volume's files.
is_version(part) if regex.match(`^\.\.[0-9]{4}(_[0-9]{2}){5}\.[0-9]{1,19}$`, part)

place(rest) := concat("/", array.concat(["$(volume-version)"], array.slice(rest, 1, count(rest)))) if is_version(rest[0])

place(rest) := concat("/", rest) if not is_version(rest[0])

# Files whose contents are the host's to say, never in the place of a volume's.
CopyFileRequest if {
	input.file_type == "Regular"
	not copied.late
	copied.name in policy_data.files
	copied.path == ""
	not data.pstate.copied[copied.at]
	count(fitting) == 0
	is_file_mode(input.file_mode)
	is_dir_mode(input.dir_mode)
	input.uid == 0
	input.gid == 0
	input.symlink_target == null
	input.file_size >= 0
	input.file_size <= 1048576
	input.offset >= 0
	input.offset <= input.file_size
}

# Of 0o7777 no more than rw-rw-rw-: nothing that could be executed.
is_file_mode(mode) if bits.and(mode, 3657) == 0

# Of 0o7777 no more than rwxr-xr-x.
is_dir_mode(mode) if bits.and(mode, 3602) == 0

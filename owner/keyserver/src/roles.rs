//! Who may do what: roles of callers, and the one table of routes that says which role each needs.

use serde::{Deserialize, Serialize};

/// What a caller may do. A caller has a set of them; none includes another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Puts keys in, makes and rotates them.
    Importer,
    /// Asks for keys on behalf of attested guests.
    Releaser,
    /// Reads keys' descriptions and the decision log.
    Auditor,
    /// Changes and deletes keys, makes backups.
    Admin,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Importer, Self::Releaser, Self::Auditor, Self::Admin];

    /// The name in configuration files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Importer => "importer",
            Self::Releaser => "releaser",
            Self::Auditor => "auditor",
            Self::Admin => "admin",
        }
    }
}

/// Who may use a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Anybody: nothing secret comes out, or evidence decides.
    Open,
    /// Callers with one of these roles.
    Roles(&'static [Role]),
}

/// One route.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Route {
    pub(crate) method: &'static str,
    pub(crate) path: &'static str,
    pub(crate) access: Access,
    pub(crate) summary: &'static str,
}

const fn route(
    method: &'static str,
    path: &'static str,
    access: Access,
    summary: &'static str,
) -> Route {
    Route { method, path, access, summary }
}

const IMPORT: Access = Access::Roles(&[Role::Importer]);
const RELEASE: Access = Access::Roles(&[Role::Releaser]);
const LOOK: Access = Access::Roles(&[Role::Importer, Role::Auditor, Role::Admin]);
const AUDIT: Access = Access::Roles(&[Role::Auditor]);
const ADMIN: Access = Access::Roles(&[Role::Admin]);

/// Every route there is. One that is not here answers nobody.
pub(crate) const ROUTES: &[Route] = &[
    route("GET", "/healthz", Access::Open, "Says that the process runs"),
    route("GET", "/readyz", Access::Open, "Says whether the database answers"),
    route("GET", "/metrics", Access::Open, "Counts and times, in Prometheus' text form"),
    route("GET", "/keys", LOOK, "Lists keys, a page at a time"),
    route("PUT", "/keys/{name}", IMPORT, "Imports a key as the latest version of its name"),
    route("POST", "/keys/{name}/create", IMPORT, "Makes a key as the latest version of its name"),
    route(
        "POST",
        "/keys/{name}/rotate",
        IMPORT,
        "Makes a further version of the same kind and policy",
    ),
    route("GET", "/keys/{name}", LOOK, "Describes the latest version of a key"),
    route("GET", "/keys/{name}/", LOOK, "The same, as clients write it that name no version"),
    route("GET", "/keys/{name}/versions", LOOK, "Lists the versions of a key, a page at a time"),
    route("GET", "/keys/{name}/{version}", LOOK, "Describes a version of a key"),
    route("PATCH", "/keys/{name}", ADMIN, "Changes the latest version's attributes, use or policy"),
    route(
        "PATCH",
        "/keys/{name}/{version}",
        ADMIN,
        "Changes a version's attributes, use or policy",
    ),
    route("DELETE", "/keys/{name}", ADMIN, "Deletes a key with all its versions"),
    route(
        "POST",
        "/keys/{name}/release",
        RELEASE,
        "Releases the latest version to the guest that a token names",
    ),
    route(
        "POST",
        "/keys/{name}//release",
        RELEASE,
        "The same, as clients write it that name no version",
    ),
    route(
        "POST",
        "/keys/{name}/{version}/release",
        RELEASE,
        "Releases a version to the guest that a token names",
    ),
    route("GET", "/v1/openapi.json", Access::Open, "This description"),
    route("GET", "/v1/identity", Access::Open, "The public key that guests know this service by"),
    route(
        "POST",
        "/v1/challenge",
        Access::Open,
        "Gives a challenge that a guest's report has to bind",
    ),
    route(
        "POST",
        "/v1/release",
        Access::Open,
        "Releases a key to the guest whose evidence is sent",
    ),
    route("GET", "/v1/log/head", AUDIT, "The decision log's signed tree head"),
    route("GET", "/v1/log/entries", AUDIT, "Entries of the decision log, a page at a time"),
    route("GET", "/v1/log/inclusion/{seq}", AUDIT, "Proves that an entry is in the log"),
    route(
        "GET",
        "/v1/log/consistency/{size}",
        AUDIT,
        "Proves that the log begins with what it was",
    ),
    route("GET", "/v1/backup", ADMIN, "All that the service keeps, keys still sealed"),
];

/// Who may use the route that a request matched; `None` when nobody may.
pub(crate) fn access(method: &str, path: &str) -> Option<Access> {
    ROUTES
        .iter()
        .find(|route| route.method == method && route.path == path)
        .map(|route| route.access)
}

//! Who a container's process runs as, exactly as the kubelet and containerd work it out.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::{Accounts, Container, Pod, RunAs};

/// A resolved identity (OCI runtime specification, `process.user`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Supplementary groups, the primary among them, ascending where containerd sorts them.
    pub additional_gids: Vec<u32>,
}

/// Why an identity cannot be worked out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UserError {
    /// The image names a user that its `/etc/passwd` does not have.
    #[error("image user {name:?} is not in the image's /etc/passwd")]
    UnknownUser {
        /// The name.
        name: String,
    },
    /// A number in `/etc/passwd` or `/etc/group` is no id.
    #[error("id {found} of {name:?} in the image's account files is outside 0..=4294967295")]
    IdRange {
        /// The entry's name.
        name: String,
        /// The number.
        found: i64,
    },
    /// `runAsNonRoot` with a process that would be root.
    #[error("runAsNonRoot is true, but the process would run as user 0")]
    Root,
    /// `runAsNonRoot` with an image that names its user.
    #[error("runAsNonRoot is true, but the image's user {name:?} is a name: expected runAsUser")]
    NotNumeric {
        /// The name.
        name: String,
    },
    /// A group without a user, which containerd refuses for the sandbox.
    #[error("pod has runAsGroup without runAsUser")]
    GroupWithoutUser,
}

/// What the kubelet asks containerd for: it cuts the group off the image's user.
enum Wanted<'a> {
    Id(u32),
    Name(&'a str),
}

/// The identity of a workload container.
///
/// # Errors
/// When the image's accounts do not have what is asked for, or `runAsNonRoot` would be broken.
pub fn workload(pod: &Pod, container: &Container) -> Result<User, UserError> {
    let accounts = &container.image.accounts;
    let wanted = wanted(container.security.run_as, &container.image.user);
    check_non_root(container, &wanted)?;
    let (uid, gid) = primary(&wanted, container.security.run_as.group, accounts)?;
    let memberships = match pod.security.ignore_image_groups {
        true => Vec::new(),
        false => memberships(&wanted, accounts)?,
    };
    // containerd adds the primary group to the memberships, then the pod's groups, sorted.
    let gids: BTreeSet<u32> = std::iter::once(gid)
        .chain(memberships)
        .chain(pod.security.supplemental_groups.iter().copied())
        .chain(pod.security.fs_group.map(|group| group.gid))
        .collect();
    Ok(User { uid, gid, additional_gids: gids.into_iter().collect() })
}

/// The identity of the sandbox container, whose image has user `65535:65535` and no account files.
///
/// Its groups are the primary alone: containerd adds the pod's groups only where neither pod nor
/// image sets a user, and this image sets one.
///
/// # Errors
/// [`UserError::GroupWithoutUser`].
pub fn sandbox(run_as: RunAs) -> Result<User, UserError> {
    let (uid, gid) = match (run_as.user, run_as.group) {
        (Some(uid), group) => (uid, group.unwrap_or(0)),
        (None, None) => (SANDBOX_ID, SANDBOX_ID),
        (None, Some(_)) => return Err(UserError::GroupWithoutUser),
    };
    Ok(User { uid, gid, additional_gids: vec![gid] })
}

/// User and group of the sandbox image (registry.k8s.io/pause:3.9, `config.User`).
const SANDBOX_ID: u32 = 65535;

fn wanted(run_as: RunAs, image_user: &str) -> Wanted<'_> {
    if let Some(uid) = run_as.user {
        return Wanted::Id(uid);
    }
    let user = image_user.split(':').next().unwrap_or_default();
    match user.parse() {
        _ if user.is_empty() => Wanted::Id(0),
        Ok(uid) => Wanted::Id(uid),
        Err(_) => Wanted::Name(user),
    }
}

fn check_non_root(container: &Container, wanted: &Wanted<'_>) -> Result<(), UserError> {
    match wanted {
        _ if !container.security.must_not_be_root => Ok(()),
        Wanted::Id(0) => Err(UserError::Root),
        Wanted::Id(_) => Ok(()),
        Wanted::Name(name) => Err(UserError::NotNumeric { name: (*name).into() }),
    }
}

fn primary(
    wanted: &Wanted<'_>,
    group: Option<u32>,
    accounts: &Accounts,
) -> Result<(u32, u32), UserError> {
    let passwd = accounts.passwd.as_deref().unwrap_or_default();
    let entry = match wanted {
        Wanted::Id(uid) => passwd.iter().find(|entry| entry.uid == i64::from(*uid)),
        Wanted::Name(name) => Some(
            passwd
                .iter()
                .find(|entry| entry.name == **name)
                .ok_or_else(|| UserError::UnknownUser { name: (*name).into() })?,
        ),
    };
    let uid = match (wanted, entry) {
        (Wanted::Id(uid), _) => *uid,
        (Wanted::Name(_), Some(entry)) => id(&entry.name, entry.uid)?,
        (Wanted::Name(name), None) => {
            return Err(UserError::UnknownUser { name: (*name).into() });
        }
    };
    let gid = match (group, entry) {
        (Some(gid), _) => gid,
        (None, Some(entry)) => id(&entry.name, entry.gid)?,
        (None, None) => 0,
    };
    Ok((uid, gid))
}

/// Groups that list the user, but not the one named like the user: containerd takes that for the
/// primary group even where it is not (containerd issue 11937).
fn memberships(wanted: &Wanted<'_>, accounts: &Accounts) -> Result<Vec<u32>, UserError> {
    let passwd = accounts.passwd.as_deref().unwrap_or_default();
    let name = match wanted {
        Wanted::Name(name) => *name,
        Wanted::Id(uid) => match passwd.iter().find(|entry| entry.uid == i64::from(*uid)) {
            Some(entry) => entry.name.as_str(),
            None => return Ok(Vec::new()),
        },
    };
    accounts
        .group
        .as_deref()
        .unwrap_or_default()
        .iter()
        .filter(|group| group.name != name && group.members.iter().any(|member| member == name))
        .map(|group| id(&group.name, group.gid))
        .collect()
}

fn id(name: &str, found: i64) -> Result<u32, UserError> {
    u32::try_from(found).map_err(|_| UserError::IdRange { name: name.into(), found })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FsGroup;
    use crate::pod::FsGroupChange;
    use crate::requests::tests::{container, pod};

    const PASSWD: &str = "root:x:0:0::/root:/bin/sh\nwww:x:33:34::/:/bin/sh\nself:x:50:60::/:\n";
    const GROUP: &str =
        "root:x:0:\nwww:x:90:www\nweb:x:40:alice,www\nself:x:70:self\nadm:x:71:self,root\n";

    struct Case {
        image_user: &'static str,
        user: Option<u32>,
        group: Option<u32>,
        expect: (u32, u32, &'static [u32]),
    }

    fn resolve(
        image_user: &str,
        run_as: RunAs,
        change: impl Fn(&mut Pod),
    ) -> Result<User, UserError> {
        let mut container = container("app");
        container.image.user = image_user.into();
        container.image.accounts = Accounts::parse(Some(PASSWD), Some(GROUP));
        container.security.run_as = run_as;
        let mut pod = pod(vec![]);
        change(&mut pod);
        workload(&pod, &container)
    }

    fn check(case: Case) {
        let run_as = RunAs { user: case.user, group: case.group };
        let (uid, gid, additional) = case.expect;
        let expect = User { uid, gid, additional_gids: additional.to_vec() };
        assert_eq!(resolve(case.image_user, run_as, |_| ()), Ok(expect), "{}", case.image_user);
    }

    #[test]
    fn an_image_user_becomes_an_identity() {
        let no = (None, None);
        for (image_user, (user, group), expect) in [
            ("", no, (0, 0, &[0, 71][..])),
            ("0", no, (0, 0, &[0, 71])),
            ("root", no, (0, 0, &[0, 71])),
            // the name's primary group comes from /etc/passwd; its own group does not count
            ("www", no, (33, 34, &[34, 40])),
            ("33", no, (33, 34, &[34, 40])),
            // the kubelet drops the group part
            ("www:1", no, (33, 34, &[34, 40])),
            ("33:99", no, (33, 34, &[34, 40])),
            ("1000:1000", no, (1000, 0, &[0])),
            // a number that /etc/passwd does not have
            ("1000", no, (1000, 0, &[0])),
            // the group named like the user is left out although it is not the primary one
            ("self", no, (50, 60, &[60, 71])),
            // runAsUser derives the group anew, runAsGroup replaces it and resets what the old one added
            ("www", (Some(50), None), (50, 60, &[60, 71])),
            ("www", (Some(4), None), (4, 0, &[0])),
            ("www", (Some(50), Some(7)), (50, 7, &[7, 71])),
            ("www", (None, Some(7)), (33, 7, &[7, 40])),
        ] {
            check(Case { image_user, user, group, expect });
        }
    }

    /// The identity in an image with its own account files.
    fn identity(
        image_user: &str,
        passwd: Option<&str>,
        group: Option<&str>,
    ) -> (u32, u32, Vec<u32>) {
        let mut container = container("app");
        container.image.user = image_user.into();
        container.image.accounts = Accounts::parse(passwd, group);
        let user = workload(&pod(vec![]), &container).unwrap();
        (user.uid, user.gid, user.additional_gids)
    }

    #[test]
    fn trap_a_number_needs_no_account_files() {
        assert_eq!(identity("1000", None, None), (1000, 0, vec![0]));
        assert_eq!(identity("", None, None), (0, 0, vec![0]));
        assert_eq!(identity("1000", None, Some("g:x:5:1000\n")), (1000, 0, vec![0]));
    }

    #[test]
    fn trap_the_image_users_group_part_is_dropped() {
        let (passwd, group) = (Some("a:x:7:8::/:\n"), Some("g:x:9:\n"));
        for user in ["a", "a:g", "a:9", "7:9", "7:g", "7:"] {
            assert_eq!(identity(user, passwd, group), (7, 8, vec![8]), "{user}");
        }
    }

    #[test]
    fn trap_a_group_named_like_the_user_is_no_membership() {
        let group = Some("a:x:90:a\nb:x:91:a\n");
        assert_eq!(identity("a", Some("a:x:7:8::/:\n"), group), (7, 8, vec![8, 91]));
        assert_eq!(identity("7", Some("a:x:7:8::/:\n"), group), (7, 8, vec![8, 91]));
        // the primary group stays, whatever its name
        assert_eq!(identity("a", Some("a:x:7:90::/:\n"), group), (7, 90, vec![90, 91]));
    }

    #[test]
    fn trap_the_first_entry_of_a_name_or_number_counts() {
        let passwd = Some("a:x:7:8::/:\na:x:9:9::/:\nb:x:7:5::/:\n");
        let group = Some("g:x:20:b\nh:x:21:a\n");
        assert_eq!(identity("a", passwd, group), (7, 8, vec![8, 21]));
        assert_eq!(identity("7", passwd, group), (7, 8, vec![8, 21]));
        assert_eq!(identity("b", passwd, group), (7, 5, vec![5, 20]));
    }

    #[test]
    fn trap_a_user_that_reads_as_a_number_is_one() {
        let passwd = Some("33:x:1:2::/:\nwww:x:33:34::/:\n");
        assert_eq!(identity("33", passwd, None), (33, 34, vec![34]));
        assert_eq!(identity("033", passwd, None), (33, 34, vec![34]));
    }

    #[test]
    fn trap_a_user_of_an_image_whose_accounts_are_gone_is_refused() {
        let mut app = container("app");
        app.image.user = "www".into();
        let unknown = Err(UserError::UnknownUser { name: "www".into() });
        assert_eq!(workload(&pod(vec![]), &app), unknown);
        app.image.user = "-1".into();
        assert!(workload(&pod(vec![]), &app).is_err());
        app.image.user = "4294967296".into();
        assert!(workload(&pod(vec![]), &app).is_err());
    }

    #[test]
    fn the_pods_groups_are_added_sorted() {
        let groups = |pod: &mut Pod| {
            pod.security.supplemental_groups = vec![500, 3];
            pod.security.fs_group = Some(FsGroup { gid: 40, change: FsGroupChange::Always });
        };
        let user = resolve("www", RunAs::default(), groups).unwrap();
        assert_eq!(user.additional_gids, [3, 34, 40, 500]);
        let strict = |pod: &mut Pod| {
            groups(pod);
            pod.security.ignore_image_groups = true;
            pod.security.fs_group = None;
        };
        let user = resolve("www", RunAs::default(), strict).unwrap();
        assert_eq!(user.additional_gids, [3, 34, 500]);
    }

    #[test]
    fn what_the_image_does_not_have_is_refused() {
        let unknown = resolve("nobody", RunAs::default(), |_| ());
        assert_eq!(unknown, Err(UserError::UnknownUser { name: "nobody".into() }));
        let mut bad = container("app");
        bad.image.user = "big".into();
        bad.image.accounts = Accounts::parse(Some("big:x:4294967296:0:::\n"), None);
        let expect = Err(UserError::IdRange { name: "big".into(), found: 4294967296 });
        assert_eq!(workload(&pod(vec![]), &bad), expect);
    }

    #[test]
    fn run_as_non_root_is_kept() {
        let check = |image_user: &str, user, expect| {
            let mut container = container("app");
            container.image.user = image_user.into();
            container.image.accounts = Accounts::parse(Some(PASSWD), None);
            container.security.must_not_be_root = true;
            container.security.run_as.user = user;
            assert_eq!(workload(&pod(vec![]), &container).map(drop), expect, "{image_user}");
        };
        check("33", None, Ok(()));
        check("", None, Err(UserError::Root));
        check("33", Some(0), Err(UserError::Root));
        check("www", None, Err(UserError::NotNumeric { name: "www".into() }));
        check("www", Some(33), Ok(()));
    }

    #[test]
    fn the_sandbox_has_its_images_user_unless_the_pod_says_one() {
        let check = |user, group, expect: Result<(u32, u32), UserError>| {
            let found = sandbox(RunAs { user, group }).map(|user| {
                assert_eq!(user.additional_gids, [user.gid]);
                (user.uid, user.gid)
            });
            assert_eq!(found, expect);
        };
        check(None, None, Ok((65535, 65535)));
        check(Some(5), None, Ok((5, 0)));
        check(Some(5), Some(6), Ok((5, 6)));
        check(None, Some(6), Err(UserError::GroupWithoutUser));
    }
}

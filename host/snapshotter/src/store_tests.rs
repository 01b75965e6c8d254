use super::*;

fn open(root: &Path) -> Arc<Store> {
    Arc::new(Store::open(root).unwrap())
}

fn make(store: &Arc<Store>, name: &str, parent: Option<&str>, kind: Kind) -> Snapshot {
    store.begin(name, parent, kind, BTreeMap::new()).unwrap().keep().unwrap().0
}

fn committed(store: &Arc<Store>, name: &str, parent: Option<&str>) -> Snapshot {
    let key = format!("{name}-key");
    make(store, &key, parent, Kind::Active);
    store.commit(&key, name, BTreeMap::new()).unwrap()
}

fn entries(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn snapshots_are_there_after_a_restart() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let base = committed(&store, "base", None);
    let top = committed(&store, "top", Some("base"));
    make(&store, "container", Some("top"), Kind::Active);
    store.set_layer("top", Sha256::of("x")).unwrap();
    let listed = store.list();
    assert!(matches!(Store::open(root.path()), Err(StoreError::InUse { .. })));
    drop(store);

    let store = open(root.path());
    assert_eq!(store.list(), listed);
    let lineage = store.lineage("container").unwrap();
    let ids: Vec<u64> = lineage.iter().map(|snapshot| snapshot.id).collect();
    assert_eq!(ids[1..], [top.id, base.id]);
    assert_eq!(store.layers(), [Sha256::of("x")].into());
    // Ids are not used twice.
    assert!(make(&store, "other", None, Kind::Active).id > lineage[0].id);
}

#[test]
fn what_was_half_made_is_gone_after_a_restart() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    committed(&store, "base", None);
    let kept = entries(store.folder());
    // A process that is killed does not drop its drafts.
    std::mem::forget(store.begin("draft", Some("base"), Kind::Active, BTreeMap::new()).unwrap());
    fs::write(store.folder().join(".tmpAbCd"), "{").unwrap();
    let folder = store.folder().to_owned();
    assert_eq!(entries(&folder).len(), kept.len() + 2);
    // The forgotten draft holds the store, and its lock ends with a process only.
    let copy = tempfile::tempdir().unwrap();
    let status = std::process::Command::new("cp")
        .args(["-a", &root.path().display().to_string(), &copy.path().display().to_string()])
        .status()
        .unwrap();
    assert!(status.success());
    let copied = copy.path().join(root.path().file_name().unwrap());
    let store = open(&copied);
    assert_eq!(entries(store.folder()), kept);
    assert_eq!(store.list().len(), 1);
}

#[test]
fn a_dropped_draft_leaves_nothing() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    drop(store.begin("draft", None, Kind::Active, BTreeMap::new()).unwrap());
    assert_eq!(entries(store.folder()), Vec::<String>::new());
    make(&store, "draft", None, Kind::Active);
}

#[test]
fn a_broken_file_does_not_keep_others_from_being_served() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let (a, b) = (committed(&store, "a", None), committed(&store, "b", None));
    fs::write(store.file(a.id), "{").unwrap();
    drop(store);
    let store = open(root.path());
    assert_eq!(store.list(), [b]);
    assert!(store.folder().join(format!("{}.broken", a.id)).exists());
    assert!(!store.folder().join(a.id.to_string()).exists());
}

#[test]
fn each_operation_is_refused_where_it_does_not_fit() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    committed(&store, "base", None);
    make(&store, "active", Some("base"), Kind::Active);
    make(&store, "view", Some("base"), Kind::View);
    let begin = |name: &str, parent: Option<&str>| {
        store.begin(name, parent, Kind::Active, BTreeMap::new()).map(|_| ())
    };
    assert!(matches!(begin("new", Some("base")), Ok(())));
    assert!(matches!(begin("base", None), Err(StoreError::Exists { .. })));
    assert!(matches!(begin("new", Some("none")), Err(StoreError::NotFound { .. })));
    assert!(matches!(begin("new", Some("active")), Err(StoreError::Kind { .. })));
    let commit = |key: &str, name: &str| store.commit(key, name, BTreeMap::new());
    assert!(matches!(commit("view", "new"), Err(StoreError::Kind { .. })));
    assert!(matches!(commit("none", "new"), Err(StoreError::NotFound { .. })));
    assert!(matches!(commit("active", "base"), Err(StoreError::Exists { .. })));
    assert!(matches!(store.remove("base"), Err(StoreError::HasChildren { .. })));
    assert!(matches!(store.remove("none"), Err(StoreError::NotFound { .. })));
    for name in ["active", "view", "base"] {
        store.remove(name).unwrap();
    }
    assert_eq!(entries(store.folder()), Vec::<String>::new());
}

#[test]
fn labels_are_changed_as_the_mask_says() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    committed(&store, "a", None);
    let check = |labels: &[(&str, &str)], paths: &[&str], expect: &[(&str, &str)]| {
        let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let paths: Vec<String> = paths.iter().map(|path| (*path).to_owned()).collect();
        let found = store.update("a", &labels, &paths).unwrap().labels;
        let found: Vec<(&str, &str)> = found.iter().map(|(k, v)| (&**k, &**v)).collect();
        assert_eq!(found, expect);
    };
    check(&[("x", "1"), ("y", "2")], &[], &[("x", "1"), ("y", "2")]);
    check(&[("x", "3"), ("z", "4")], &["labels.z"], &[("x", "1"), ("y", "2"), ("z", "4")]);
    check(&[], &["labels.y"], &[("x", "1"), ("z", "4")]);
    check(&[("q", "1")], &["labels"], &[("q", "1")]);
    let other = store.update("a", &HashMap::new(), &["kind".to_owned()]);
    assert!(matches!(other, Err(StoreError::Field { .. })));
}

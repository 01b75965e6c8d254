//! A text as a manifest, as carriers of annotations, and as rules for kinds.
//!
//! Invariant: reading never panics; what is read whole is edited into a text that is read again, with as many pods, each with the
//! annotation (the edit itself checks that nothing else changed).
#![no_main]

use std::collections::BTreeMap;

use ah_manifest::{NamedText, ReadOptions, Rules, carriers, read_set};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let named = || NamedText { name: "f.yaml".to_owned(), text: text.to_owned() };
    let _ = Rules::shipped().with_file(text);
    let carried = carriers(named(), &Rules::shipped());
    let Ok(set) = read_set(vec![named()], &ReadOptions::default()) else { return };
    assert_eq!(carried.map(|all| all.len()), Ok(set.pods().count()));
    for file in set.files() {
        let Ok(edited) = file.with_annotation_and_digests("k", "v", &BTreeMap::new()) else { continue };
        let again = NamedText { name: "f.yaml".to_owned(), text: edited };
        let again = read_set(vec![again], &ReadOptions::default()).expect("what was written is read");
        assert_eq!(again.pods().count(), set.pods().count());
        assert!(again.pods().all(|(_, pod)| pod.annotations().get("k").is_some_and(|v| v == "v")));
    }
});

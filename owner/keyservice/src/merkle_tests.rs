use super::*;

/// The definition of section 2.1.1, word for word.
fn naive_root(leaves: &[Sha256]) -> Sha256 {
    match leaves {
        [] => Sha256::of([]),
        [one] => *one,
        many => {
            let split = usize::try_from(largest_power_below(many.len() as u64)).unwrap();
            node_hash(&naive_root(&many[..split]), &naive_root(&many[split..]))
        }
    }
}

fn leaves(count: u64) -> Vec<Sha256> {
    (0..count).map(|number| leaf_hash(&number.to_be_bytes())).collect()
}

fn proof(ranges: &[Range<u64>], leaves: &[Sha256]) -> Vec<Sha256> {
    let part = |range: &Range<u64>| naive_root(&leaves[range.start as usize..range.end as usize]);
    ranges.iter().map(part).collect()
}

#[test]
fn growth_gives_the_root_of_the_definition_and_every_perfect_subtree() {
    let all = leaves(70);
    let mut tree = Frontier::default();
    let mut nodes = std::collections::HashMap::new();
    assert_eq!(tree.root(), naive_root(&[]));
    for (count, leaf) in all.iter().enumerate() {
        nodes.extend(tree.push(*leaf));
        assert_eq!(tree.root(), naive_root(&all[..=count]));
        assert_eq!(Frontier::new(tree.size(), tree.peaks().to_vec()), Some(tree.clone()));
    }
    assert_eq!(Frontier::new(70, leaves(2)), None);
    for range in [0..70, 0..64, 64..70, 32..48, 68..69] {
        let hashes: Vec<_> =
            perfect_subtrees(range.clone()).iter().map(|place| nodes[place]).collect();
        assert_eq!(fold(&hashes), naive_root(&all[range.start as usize..range.end as usize]));
    }
}

#[test]
fn attack_inclusion_of_what_is_not_there() {
    for size in 1..20 {
        let all = leaves(size);
        let root = naive_root(&all);
        for index in 0..size {
            let good = proof(&inclusion_ranges(index, size), &all);
            let leaf = &all[index as usize];
            assert!(includes(&root, size, index, leaf, &good), "{index} of {size}");
            assert!(!includes(&root, size, index, &leaf_hash(b"other"), &good));
            assert!(!includes(&leaf_hash(b"other"), size, index, leaf, &good));
            assert!(!includes(&root, size, size, leaf, &good));
            let longer = [good.clone(), vec![root]].concat();
            assert!(!includes(&root, size, index, leaf, &longer));
            for cut in 0..good.len() {
                assert!(!includes(&root, size, index, leaf, &good[..cut]));
                let mut bad = good.clone();
                bad[cut] = leaf_hash(b"other");
                assert!(!includes(&root, size, index, leaf, &bad));
            }
        }
    }
}

#[test]
fn attack_history_rewritten() {
    let all = leaves(20);
    for new in 0..=20u64 {
        for old in 0..=new {
            let (of_old, of_new) =
                (naive_root(&all[..old as usize]), naive_root(&all[..new as usize]));
            let good = proof(&consistency_ranges(old, new), &all);
            assert!(extends((old, &of_old), (new, &of_new), &good), "{old} to {new}");
            let other = leaf_hash(b"other");
            assert!(!extends((old, &other), (new, &of_new), &good), "{old} to {new}");
            // The empty tree is the beginning of every tree, and so says nothing of the later one.
            assert!(old == 0 && new > 0 || !extends((old, &of_old), (new, &other), &good));
            for cut in 0..good.len() {
                assert!(!extends((old, &of_old), (new, &of_new), &good[..cut]));
                let mut bad = good.clone();
                bad[cut] = other;
                assert!(!extends((old, &of_old), (new, &of_new), &bad));
            }
            assert!(!extends((new + 1, &of_new), (new, &of_new), &good), "a log that shrank");
        }
    }
}

/// Roots of the eight leaves of the test vectors that Certificate Transparency implementations share.
#[test]
fn known_answers_of_certificate_transparency() {
    let entries = [
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    ];
    let mut tree = Frontier::default();
    for entry in entries {
        tree.push(leaf_hash(&hex::decode(entry).unwrap()));
    }
    let expect = "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328";
    assert_eq!(tree.root().to_string(), expect);
}

//! The tree and the superblock against `veritysetup` (Debian package cryptsetup-bin).

use std::path::Path;
use std::process::{Command, Output};

use ah_verity::{BLOCK_BYTES, Superblock, TreeBuilder, VerityInfo};

const NIL_UUID: &str = "00000000-0000-0000-0000-000000000000";

fn veritysetup(args: &[&str], data: &Path, hash: &Path, tail: &[&str]) -> Option<Output> {
    let output =
        Command::new("/usr/sbin/veritysetup").args(args).arg(data).arg(hash).args(tail).output();
    match output {
        Ok(output) => Some(output),
        Err(error) => {
            println!("skipped: veritysetup does not start: {error}");
            None
        }
    }
}

fn sample(blocks: usize, zero_from: usize) -> Vec<u8> {
    let mut data: Vec<u8> = (0..blocks * BLOCK_BYTES).map(|i| (i / 11 % 253) as u8).collect();
    data.iter_mut().skip(zero_from * BLOCK_BYTES).for_each(|byte| *byte = 0);
    data
}

fn ours(data: &[u8]) -> (VerityInfo, Vec<u8>) {
    let mut builder = TreeBuilder::new([0; 32]);
    builder.push_blocks(data);
    let tree = builder.finish().unwrap();
    let superblock = Superblock::of(&tree.info()).encode();
    let parts: Vec<&[u8]> = std::iter::once(&superblock[..]).chain(tree.levels()).collect();
    (tree.info(), parts.concat())
}

fn check(blocks: usize, zero_from: usize) {
    let folder = tempfile::tempdir().unwrap();
    let (data_path, hash_path) = (folder.path().join("data"), folder.path().join("hash"));
    let data = sample(blocks, zero_from);
    std::fs::write(&data_path, &data).unwrap();
    let (info, expected) = ours(&data);
    let salt = format!("--salt={}", "0".repeat(64));
    let uuid = format!("--uuid={NIL_UUID}");
    let Some(output) = veritysetup(&["format", &salt, &uuid], &data_path, &hash_path, &[]) else {
        return;
    };
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    assert!(text.contains(&info.root_hash.to_string()), "{text} against {}", info.root_hash);
    let found = std::fs::read(&hash_path).unwrap();
    assert_eq!(found.len(), expected.len());
    assert!(found == expected, "{blocks} blocks: superblock or tree differs from veritysetup");
}

#[test]
fn tree_equals_veritysetup_format() {
    for blocks in [2, 127, 128, 129, 1000, 128 * 128, 128 * 128 + 1] {
        check(blocks, blocks);
        check(blocks, 1);
    }
}

#[test]
fn veritysetup_verifies_what_we_build_and_refuses_a_flipped_byte() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image");
    let data = sample(300, 200);
    let (info, hash) = ours(&data);
    let offset = format!("--hash-offset={}", info.hash_offset_bytes());
    let root = info.root_hash.to_string();
    let mut bytes = [data, hash].concat();
    for accept in [true, false] {
        std::fs::write(&image, &bytes).unwrap();
        let Some(output) = veritysetup(&["verify", &offset], &image, &image, &[&root]) else {
            return;
        };
        assert_eq!(output.status.success(), accept, "{}", String::from_utf8_lossy(&output.stderr));
        bytes[77 * BLOCK_BYTES + 1] ^= 1;
    }
}

//! The file systems that are made, as e2fsck sees them.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::process::Command;

use ah_scratch::ext4::{self, BLOCK_BYTES};

fn image(blocks: u64) -> tempfile::NamedTempFile {
    let image = tempfile::NamedTempFile::new().unwrap();
    let file: &File = image.as_file();
    // What is not written must not matter.
    file.set_len(blocks * BLOCK_BYTES).unwrap();
    if blocks < 4096 {
        file.write_all_at(&vec![0xa5; usize::try_from(blocks * BLOCK_BYTES).unwrap()], 0).unwrap();
    }
    for piece in ext4::format(blocks, &[7; 16]).unwrap() {
        file.write_all_at(&piece.bytes, piece.block * BLOCK_BYTES).unwrap();
    }
    image
}

fn check(blocks: u64) {
    let image = image(blocks);
    let out = Command::new("e2fsck").args(["-f", "-n"]).arg(image.path()).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    // A folder for what a repair finds is of no use here; it is all that e2fsck misses.
    let complaints: Vec<&str> = text
        .lines()
        .filter(|line| line.contains('?') || line.contains("differ") || line.contains("wrong"))
        .filter(|line| !line.starts_with("/lost+found not found."))
        .collect();
    assert!(complaints.is_empty() && text.contains("Pass 5"), "{blocks} blocks: {text}");
}

#[test]
fn e2fsck_finds_nothing_wrong_in_any_size() {
    for blocks in
        [256, 300, 1000, 4095, 32768, 32769, 33344, 33400, 40000, 65536, 100_000, 4 << 18, 16 << 18]
    {
        check(blocks);
    }
}

#[test]
fn sizes_out_of_range_are_refused() {
    assert!(ext4::format(256, &[0; 16]).is_ok());
    assert!(ext4::format(255, &[0; 16]).is_err());
    assert!(ext4::format(1 << 31, &[0; 16]).is_ok());
    assert!(ext4::format((1 << 31) + 1, &[0; 16]).is_err());
}

#[test]
fn a_limit_is_room_for_so_many_bytes() {
    for bytes in [0, 1, 1 << 20, 64 << 20, 1 << 30, 100 << 30_u64] {
        let blocks = ext4::blocks_for(bytes);
        let image = image(blocks);
        let out = Command::new("dumpe2fs").arg("-h").arg(image.path()).output().unwrap();
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        let free: u64 = text
            .lines()
            .find_map(|line| line.strip_prefix("Free blocks:"))
            .and_then(|rest| rest.trim().parse().ok())
            .unwrap();
        assert!(free * BLOCK_BYTES >= bytes, "{bytes}: {free} free of {blocks}");
        assert!(blocks * BLOCK_BYTES <= bytes + bytes / 16 + (2 << 20), "{bytes}: {blocks}");
    }
}

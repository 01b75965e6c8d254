//! Invariant: a layer that conversion accepts gives the same image twice, the strict reader walks it, and its hash tree
//! is that of its data.
#![no_main]

use std::io::{Read, Seek};

use ah_convert::convert_layer;
use ah_digest::Sha256;
use ah_erofs::Image;
use ah_oci::LayerMediaType;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|tar: &[u8]| {
    let Some(first) = convert(tar) else { return };
    assert!(convert(tar).as_ref() == Some(&first));
    let image = Image::open(first).expect("own image is readable");
    image.walk().expect("own image is a tree");
});

fn convert(tar: &[u8]) -> Option<Vec<u8>> {
    let mut out = tempfile::tempfile().expect("temporary file");
    let converted = convert_layer(tar, LayerMediaType::Tar, &Sha256::of(tar), &out).ok()?;
    let mut image = Vec::new();
    out.rewind().expect("seek");
    out.read_to_end(&mut image).expect("read");
    let mut tree = ah_verity::TreeBuilder::new(ah_verity::ZERO_SALT);
    tree.push_blocks(&image[..converted.sizes.erofs_bytes as usize]);
    assert_eq!(tree.finish().expect("blocks").info(), converted.info);
    Some(image)
}

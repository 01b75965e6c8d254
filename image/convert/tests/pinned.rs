//! The determinism contract: these digests change only with `CONVERSION_VERSION`.

use std::io::Write;
use std::path::Path;

use ah_convert::{CONVERSION_VERSION, ConvertError, Converted, convert_layer, root_hash};
use ah_digest::Sha256;
use ah_oci::LayerMediaType;
use ah_testkit_images::{
    Entry, TarBuilder, awkward_layer, awkward_upper_layer, random_bytes, random_layer,
};

/// Name, SHA-256 of the whole layer block image, root hash.
const PINNED: [(&str, &str, &str); 6] = [
    (
        "empty",
        "87bbab03f40bbd43b5cee61ac3de19ea5c090ee9187c23d32fd88e1a845c2d8d",
        "2b415cbc404e1027284ae0a2b8a8f264ead4ccc88d2ae4df302560b981bc500e",
    ),
    (
        "one-file",
        "1c9bab7bf29a1de8012592463d586b110e13dff6023cf1e3bfb709bf0b62ef2c",
        "849ce26bb2eeb0b8cdffe7564051498b740fa9b341da18e4a7c67f5df73e9f95",
    ),
    (
        "awkward",
        "5b7fbb4fa88c7e9f207151e359755e320a29807e22a09cbf75073b9e0ce500a3",
        "b453a950c98abb134e06b49f1ec391ff6b0622b676b23c9e13d4082ab3625e60",
    ),
    (
        "upper",
        "d83df11ec01a0edfafec3613557d263e833d5220ed4473036dbcd4caf5b45266",
        "e9fe83ceffaf89a8f6449e7cb3c6e16e16e6f772046d3512e9599b99b34c5489",
    ),
    (
        "many",
        "fa2d2902f7496611c32294c1e9052823d540e2ae97c3c69cdedaccf49219bbb7",
        "90001d2e15822af51b087deda3643bdb894ff4672dbac0f461f29fb4f15d9ec1",
    ),
    (
        "over-inline-budget",
        "aa106d2bdc8d32320f6e0ac281b271a89c4e62b9433fac7af74f19226d534db9",
        "9821a65c880fceedb0b4fcf371fe21740604c888b23ff8aaddfd251a9e1df52a",
    ),
];

fn layer(name: &str) -> Vec<u8> {
    match name {
        "empty" => vec![0; 1024],
        "one-file" => TarBuilder::bytes([Entry::file("a", random_bytes(1, 10_000))]),
        "awkward" => awkward_layer(),
        "upper" => awkward_upper_layer(),
        "many" => {
            let mut tar = Vec::new();
            random_layer(&mut tar, 10 << 20).unwrap();
            tar
        }
        // 17,000 tails of 2000 bytes are more than the 32 MiB that may lie beside inodes.
        _ => TarBuilder::bytes((0..17_000).map(|i| Entry::file(format!("f{i}"), vec![7; 2000]))),
    }
}

fn convert(
    blob: &[u8],
    media_type: LayerMediaType,
    tar: &[u8],
    out: &Path,
) -> Result<Converted, ConvertError> {
    let file = std::fs::File::create(out).unwrap();
    convert_layer(blob, media_type, &Sha256::of(tar), &file)
}

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn output_is_pinned() {
    assert_eq!(CONVERSION_VERSION, 1);
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("image");
    let mut wrong = Vec::new();
    for (name, image, root) in PINNED {
        let tar = layer(name);
        let converted = convert(&tar, LayerMediaType::Tar, &tar, &out).unwrap();
        let bytes = std::fs::read(&out).unwrap();
        assert_eq!(bytes.len() as u64, converted.sizes.image_bytes, "{name}");
        assert_eq!(bytes.len() as u64, converted.info.image_bytes(), "{name}");
        assert_eq!(tar.len() as u64, converted.sizes.tar_bytes, "{name}");
        let found = (Sha256::of(&bytes).to_string(), converted.info.root_hash.to_string());
        if found != (image.to_owned(), root.to_owned()) {
            wrong.push(format!("(\"{name}\", \"{}\", \"{}\"),", found.0, found.1));
        }
    }
    assert!(
        wrong.is_empty(),
        "output changed; a new CONVERSION_VERSION is due:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn packing_and_keeping_make_no_difference() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("image");
    let tar = awkward_layer();
    let half = tar.len() / 2;
    let members = [gzip(&tar[..half]), gzip(&tar[half..])].concat();
    let frames =
        [&tar[..half], &tar[half..]].map(|part| zstd::encode_all(part, 3).unwrap()).concat();
    let blobs = [
        (tar.clone(), LayerMediaType::Tar),
        (gzip(&tar), LayerMediaType::TarGzip),
        (members, LayerMediaType::TarGzip),
        (zstd::encode_all(&*tar, 1).unwrap(), LayerMediaType::TarZstd),
        (frames, LayerMediaType::TarZstd),
    ];
    let images: Vec<_> = blobs
        .iter()
        .map(|(blob, media_type)| {
            let converted = convert(blob, *media_type, &tar, &out).unwrap();
            let alone = root_hash(&**blob, *media_type, &Sha256::of(&tar)).unwrap();
            assert_eq!(alone, converted);
            std::fs::read(&out).unwrap()
        })
        .collect();
    assert!(images.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn a_used_output_file_is_cut_to_length() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("image");
    let tar = layer("one-file");
    convert(&tar, LayerMediaType::Tar, &tar, &out).unwrap();
    let expected = std::fs::read(&out).unwrap();
    std::fs::write(&out, vec![0xff; 1 << 20]).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(&out).unwrap();
    convert_layer(&*tar, LayerMediaType::Tar, &Sha256::of(&tar), &file).unwrap();
    assert!(std::fs::read(&out).unwrap() == expected);
}

#[test]
fn attack_layer_bytes_other_than_the_diff_id_are_refused() {
    let tar = layer("one-file");
    let expected = Sha256::of(&tar);
    assert!(root_hash(&*tar, LayerMediaType::Tar, &expected).is_ok());
    let mut other = tar.clone();
    other[600] ^= 1;
    let longer = [&tar[..], &[0; 512]].concat();
    for bad in [&other, &longer] {
        let error = root_hash(&**bad, LayerMediaType::Tar, &expected).unwrap_err();
        assert!(matches!(error, ConvertError::DiffId { .. }), "{error:?}");
    }
}

#[test]
fn attack_damaged_packing_is_refused() {
    let tar = layer("one-file");
    let expected = Sha256::of(&tar);
    let (gzip, zstd) = (gzip(&tar), zstd::encode_all(&*tar, 3).unwrap());
    for (blob, media_type) in [(gzip, LayerMediaType::TarGzip), (zstd, LayerMediaType::TarZstd)] {
        assert!(root_hash(&*blob, media_type, &expected).is_ok());
        let cut = &blob[..blob.len() - 5];
        assert!(root_hash(cut, media_type, &expected).is_err(), "cut {media_type}");
        let garbage = [&blob[..], b"garbage"].concat();
        assert!(root_hash(&*garbage, media_type, &expected).is_err(), "garbage {media_type}");
        assert!(
            root_hash(&*blob, LayerMediaType::Tar, &expected).is_err(),
            "unpacked {media_type}"
        );
    }
}

#[test]
fn an_output_that_fails_is_reported() {
    let tar = layer("one-file");
    let Ok(full) = std::fs::OpenOptions::new().write(true).open("/dev/full") else {
        println!("skipped: no /dev/full");
        return;
    };
    let error = convert_layer(&*tar, LayerMediaType::Tar, &Sha256::of(&tar), &full).unwrap_err();
    assert!(matches!(error, ConvertError::Output(_)), "{error:?}");
}

/// The worked example of `FORMAT.md`.
#[test]
fn one_file_takes_six_blocks() {
    let tar = layer("one-file");
    let converted = root_hash(&*tar, LayerMediaType::Tar, &Sha256::of(&tar)).unwrap();
    assert_eq!(converted.sizes.erofs_bytes, 4 * 4096);
    assert_eq!(converted.sizes.image_bytes, 6 * 4096);
    assert_eq!(converted.sizes.inodes, 2);
}

//! Two builds of an image in two folders give equal bytes.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use ah_guest_image::{BuildOptions, GuestImage, ImageError, KernelChoice};

/// File name to bytes, of a folder without folders.
fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    entries.map(|e| (e.file_name().into_string().unwrap(), fs::read(e.path()).unwrap())).collect()
}

/// Builds twice, from programs in different places with different times, and compares.
fn check(kernel: &KernelChoice, cache: &Path) -> Result<GuestImage, ImageError> {
    let folder = tempfile::tempdir().unwrap();
    let mut images = Vec::new();
    for name in ["one", "two/deeper"] {
        let place = folder.path().join(name);
        fs::create_dir_all(&place).unwrap();
        let (init, agent, out) = (place.join("init"), place.join("agent"), place.join("out"));
        fs::write(&init, "init program").unwrap();
        fs::write(&agent, "agent program").unwrap();
        let options = BuildOptions {
            init,
            agent,
            out: out.clone(),
            cache: cache.to_owned(),
            kernel: kernel.clone(),
        };
        images.push((ah_guest_image::build(&options)?, contents(&out)));
    }
    let (second, first) = (images.pop().unwrap(), images.pop().unwrap());
    assert_eq!(first.1.keys().collect::<Vec<_>>(), second.1.keys().collect::<Vec<_>>());
    for (name, bytes) in &first.1 {
        assert!(second.1[name] == *bytes, "{name} differs");
    }
    assert_eq!(GuestImage::load(&first.0.folder)?, first.0);
    Ok(first.0)
}

#[test]
fn image_from_a_kernel_file_is_reproducible() {
    let folder = tempfile::tempdir().unwrap();
    let kernel = folder.path().join("bzImage");
    fs::write(&kernel, "kernel").unwrap();
    let image = check(&KernelChoice::File(kernel), folder.path()).unwrap();
    assert!(image.manifest.modules.is_empty());
}

#[test]
fn image_from_debians_kernel_is_reproducible() {
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("kernel-packages");
    let image = match check(&KernelChoice::Debian, &cache) {
        Err(error @ (ImageError::NoKernelPackage { .. } | ImageError::Program { .. })) => {
            println!("skipped: {error}");
            return;
        }
        result => result.unwrap(),
    };
    let names: Vec<&str> =
        image.manifest.modules.iter().map(|module| module.name.as_str()).collect();
    let place = |name: &str| names.iter().position(|found| *found == name).unwrap();
    for (first, then) in
        [("vsock", "vmw_vsock_virtio_transport"), ("dm_mod", "dm_verity"), ("tsm", "sev_guest")]
    {
        assert!(place(first) < place(then), "{first} after {then}");
    }
}

#[test]
fn attack_guest_kernel_or_initrd_altered_on_disk_is_not_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("program");
    fs::write(&program, "bytes").unwrap();
    let out = folder.path().join("out");
    let options = BuildOptions {
        init: program.clone(),
        agent: program.clone(),
        out: out.clone(),
        cache: folder.path().to_owned(),
        kernel: KernelChoice::File(program),
    };
    ah_guest_image::build(&options).unwrap();
    GuestImage::load(&out).unwrap();
    for name in ["vmlinuz", "initrd"] {
        let good = fs::read(out.join(name)).unwrap();
        let mut bad = good.clone();
        bad[0] ^= 1;
        fs::write(out.join(name), &bad).unwrap();
        assert!(matches!(GuestImage::load(&out), Err(ImageError::Digest { .. })), "{name}");
        fs::write(out.join(name), &good).unwrap();
    }
    GuestImage::load(&out).unwrap();
}

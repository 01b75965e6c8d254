//! What containers write is on the scratch disk, which the host has and can neither read nor change.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex};

use ah_sandbox::{Configured, Events, Outcome, SandboxError, Stage, Stop, Stream};
use ah_testkit_e2e::{Scene, attack};
use ah_testkit_images::busybox;
use anyhow::{Context, Result};

const DISK_BYTES: u64 = 4 << 30;
const BLOCK: usize = 4096;

/// A pod with one emptyDir on disk without a limit at /free, one with a limit at /data, one in memory at /memory.
fn pod(script: &str) -> Result<Scene> {
    let script = serde_json::Value::from(script);
    let yaml = format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: scratch\nspec:\n  restartPolicy: Never\n  volumes:\n  \
         - {{name: free, emptyDir: {{}}}}\n  - {{name: data, emptyDir: {{sizeLimit: 16Mi}}}}\n  \
         - {{name: memory, emptyDir: {{medium: Memory, sizeLimit: 1Mi}}}}\n  \
         containers:\n  - name: main\n    image: localhost/busybox:1\n    command: [\"/bin/sh\", \"-c\", {script}]\n    \
         volumeMounts: [{{name: free, mountPath: /free}}, {{name: data, mountPath: /data}}, {{name: memory, mountPath: /memory}}]\n"
    );
    Scene::new(&yaml, |images| {
        images.add("localhost/busybox:1", &busybox()?)?;
        Ok(())
    })
}

/// Hears, and does one thing when the container says a word.
struct OnWord<F> {
    scene: ah_testkit_e2e::Heard,
    word: &'static str,
    act: Mutex<Option<F>>,
}

impl<F: FnOnce() + Send> Events for OnWord<F> {
    fn output(&self, container: &str, stream: Stream, line: &[u8]) {
        self.scene.output(container, stream, line);
        if line.trim_ascii_end() == self.word.as_bytes()
            && let Some(act) = self.act.lock().unwrap().take()
        {
            act();
        }
    }

    fn stage(&self, stage: &Stage) {
        self.scene.stage(stage);
    }

    fn out_of_memory(&self, container: &str) {
        Events::out_of_memory(&self.scene, container);
    }
}

/// Runs the pod with this file as its scratch disk; `act` when the container says `written`.
async fn run_on(
    scene: &Scene,
    disk: &Path,
    act: impl FnOnce() + Send + 'static,
) -> Result<Result<Outcome, SandboxError>> {
    let launch = scene.launch(scene.prepared().await?).await?;
    let act = Mutex::new(Some(act));
    let events = Arc::new(OnWord { scene: scene.heard.clone(), word: "written", act });
    let mut configured = Configured::new(launch.served()?, events)?;
    let disks = &mut configured.spec_mut().disks;
    disks.iter_mut().find(|disk| disk.serial == "scratch").context("no scratch disk")?.path =
        disk.into();
    let run = async {
        let created = configured.boot().await?.set_network().await?.create().await?;
        created.run_to_end(Stop::never()).await
    };
    Ok(run.await)
}

fn disk_file(scene: &Scene, bytes: u64) -> Result<std::path::PathBuf> {
    let path = scene.folder().join("scratch");
    File::create(&path)?.set_len(bytes)?;
    Ok(path)
}

/// Stretches of the file that hold something, from `start` on: offset and length.
fn written(file: &File, start: u64) -> Result<Vec<(u64, u64)>> {
    use rustix::fs::{SeekFrom, seek};
    let mut stretches = Vec::new();
    let mut at = start;
    while let Ok(from) = seek(file, SeekFrom::Data(at)) {
        at = seek(file, SeekFrom::Hole(from))?;
        stretches.push((from, at - from));
    }
    Ok(stretches)
}

/// Writes 8 MiB of one text into the volume with a limit, past every cache, and says so.
const WRITE: &str = "yes the-words-of-the-container | head -c 8388608 > /memory-less; \
    dd if=/memory-less of=/data/f bs=65536 oflag=direct 2>/dev/null; sync; sum=$(md5sum < /memory-less); echo written; ";

#[tokio::test(flavor = "multi_thread")]
async fn containers_write_to_the_disk_within_their_limits() -> Result<()> {
    let script = "stat -f -c %T /free /data /memory; stat -c '%a %u %g' /free /data /memory; \
        ls -A /free; ls -A /data; ls -A /memory; \
        dd if=/dev/zero of=/data/full bs=65536 2>&1 | grep -o 'No space left'; \
        test $(stat -c %s /data/full) -ge 16777216 && test $(stat -c %s /data/full) -le 19000000 && echo limit; \
        dd if=/dev/zero of=/memory/full bs=65536 2>&1 | grep -o 'No space left'; \
        test $(stat -c %s /memory/full) = 1048576 && echo memory-limit; \
        dd if=/dev/zero of=/free/large bs=1048576 count=400 2>/dev/null && dd if=/dev/zero of=/large bs=1048576 count=100 2>/dev/null && echo large; \
        grep -c dm- /proc/partitions; mkdir /free/a && ln -s /etc /free/a/b && mv /free/a /free/c && rm -r /free/c && rm /bin/busybox && echo end";
    let scene = pod(script)?;
    let outcome = scene.run().await?;
    let found = scene.heard.stdout("main");
    // in the end the device-mapper's: tags and encryption of the scratch disk, a stretch of it for each of two file systems, the image's one layer
    let limits = ["No space left", "limit", "No space left", "memory-limit", "large", "5"];
    let expect =
        [&["ext2/ext3", "ext2/ext3", "tmpfs", "777 0 0", "777 0 0", "777 0 0"][..], &limits];
    let first: Vec<&str> = found.iter().take(12).map(String::as_str).collect();
    assert_eq!(first, expect.concat(), "{}", scene.heard.everything());
    assert_eq!(found.last().map(String::as_str), Some("end"), "{}", scene.heard.everything());
    assert_eq!(outcome.exit_code, 0);
    Ok(())
}

/// A container with a limit fills its root and is told so; the one beside it, with a limit of 0, which is none, writes more.
#[tokio::test(flavor = "multi_thread")]
async fn a_root_has_the_limit_of_its_container() -> Result<()> {
    let fill = "dd if=/dev/zero of=/full bs=65536 2>&1 | grep -o 'No space left'; stat -c %s /full; grep -c dm- /proc/partitions";
    let free = "dd if=/dev/zero of=/full bs=65536 count=800 2>/dev/null; stat -c %s /full";
    let container = |name: &str, script: &str, limits: &str| {
        format!(
            "  - name: {name}\n    image: localhost/busybox:1\n    command: [sh, -c, \"{script}\"]\n    resources: {{limits: {limits}}}\n"
        )
    };
    let yaml = format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: scratch\nspec:\n  restartPolicy: Never\n  initContainers:\n{}  containers:\n{}",
        container("first", fill, "{ephemeral-storage: 8Mi}"),
        container("main", free, "{ephemeral-storage: 0}"),
    );
    let scene = Scene::new(&yaml, |images| {
        images.add("localhost/busybox:1", &busybox()?)?;
        Ok(())
    })?;
    scene.run().await?;
    let first = scene.heard.stdout("first");
    let [told, size, devices] = first.as_slice() else {
        anyhow::bail!("{}", scene.heard.everything());
    };
    assert_eq!(told, "No space left");
    let size: u64 = size.parse()?;
    assert!((8 << 20..10 << 20).contains(&size), "{size}");
    // tags, encryption, what is shared, the image's layer, and this root
    assert_eq!(devices, "5");
    assert_eq!(scene.heard.stdout("main"), ["52428800"], "{}", scene.heard.everything());
    Ok(())
}

/// What dm-integrity keeps at the beginning of a disk (Linux drivers/md/dm-integrity.c, `struct superblock`), for blocks of 4096 bytes.
fn superblock(tag_bytes: u16) -> Vec<u8> {
    let mut bytes = b"integrt\0".to_vec();
    bytes.extend([1, 15]); // version, log2 of an area's sectors
    bytes.extend(tag_bytes.to_le_bytes());
    bytes.extend(1_u32.to_le_bytes()); // sections of the journal
    bytes.extend((1_u64 << 20).to_le_bytes()); // sectors provided
    bytes.extend(0_u32.to_le_bytes()); // flags
    bytes.push(3); // log2 of a block's sectors
    bytes
}

/// One whose tags are too short for the guest's key: with it the disk would not be opened, or not be authenticated.
#[tokio::test(flavor = "multi_thread")]
async fn attack_superblock_that_the_host_prepared() -> Result<()> {
    let scene = pod(&format!(
        "{WRITE} md5sum < /data/f > /free/sum; echo \"$sum\" | diff - /free/sum && echo same"
    ))?;
    let disk = disk_file(&scene, DISK_BYTES)?;
    File::options().write(true).open(&disk)?.write_all_at(&superblock(4), 0)?;
    let outcome = run_on(&scene, &disk, || ()).await??;
    assert_eq!(scene.heard.stdout("main"), ["written", "same"], "{}", scene.heard.everything());
    assert_eq!(outcome.exit_code, 0);
    let mut found = [0; 12];
    File::open(&disk)?.read_exact_at(&mut found, 0)?;
    let tag_bytes = |superblock: &[u8]| superblock.get(10..12).map(<[u8]>::to_vec);
    assert_eq!((&found[..8], tag_bytes(&found)), (&b"integrt\0"[..], tag_bytes(&superblock(32))));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_host_reads_what_a_container_wrote() -> Result<()> {
    let scene = pod(&format!("{WRITE} sleep 1"))?;
    let disk = disk_file(&scene, DISK_BYTES)?;
    let outcome = run_on(&scene, &disk, || ()).await??;
    assert_eq!(outcome.exit_code, 0, "{}", scene.heard.everything());
    let file = File::open(&disk)?;
    let mut total = 0;
    for (from, length) in written(&file, 0)? {
        let mut bytes = vec![0; usize::try_from(length)?];
        file.read_exact_at(&mut bytes, from)?;
        let found = bytes.windows(10).any(|window| window == b"words-of-t");
        assert!(!found, "plain text between {from} and {}", from + length);
        total += length;
    }
    assert!(total > 8 << 20, "{total} bytes: the container's file is not on the disk");
    Ok(())
}

/// What the C library says of EILSEQ, which is how dm-crypt refuses a sector (drivers/md/dm-crypt.c, BLK_STS_PROTECTION).
const REFUSED: &str = "Invalid or incomplete multibyte";
/// Reads the file again and again until it is refused, or differs.
const READ: &str = "n=0; while [ $n -lt 3000 ]; do n=$((n+1)); \
    dd if=/data/f bs=1048576 iflag=direct > /free/again 2>/free/error || { grep -o 'Invalid or incomplete multibyte' /free/error; exit 7; }; \
    [ \"$sum\" = \"$(md5sum < /free/again)\" ] || { echo changed; exit 8; }; done; echo unnoticed";

#[tokio::test(flavor = "multi_thread")]
async fn attack_host_changes_a_byte_of_what_a_container_wrote() -> Result<()> {
    let scene = pod(&format!("{WRITE}{READ}"))?;
    let disk = disk_file(&scene, DISK_BYTES)?;
    let path = disk.clone();
    let flipped = Arc::new(Mutex::new(None));
    let done = flipped.clone();
    let flip = move || {
        // The volume with a limit is in the second half; the longest stretch that was written there is of its file: tags take 128 KiB at a time, a file
        // system's own blocks less.
        let longest =
            File::open(&path).map_err(Into::into).and_then(|file| written(&file, DISK_BYTES / 2));
        let longest =
            longest.ok().and_then(|all| all.into_iter().max_by_key(|(_, length)| *length));
        if let Some((from, length)) = longest {
            *done.lock().unwrap() =
                attack::flip(&path, from + length / 2).is_ok().then_some(length);
        }
    };
    let outcome = run_on(&scene, &disk, flip).await??;
    let length = flipped.lock().unwrap().unwrap_or_default();
    assert!(length >= 1 << 20, "{length} bytes: not the container's file");
    assert_eq!(outcome.exit_code, 7, "{}", scene.heard.everything());
    assert_eq!(scene.heard.stdout("main"), ["written", REFUSED]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_host_moves_what_a_container_wrote() -> Result<()> {
    let scene = pod(&format!("{WRITE}{READ}"))?;
    let disk = disk_file(&scene, DISK_BYTES)?;
    let path = disk.clone();
    let moved = Arc::new(Mutex::new(false));
    let done = moved.clone();
    let swap = move || {
        let Ok(file) = File::options().read(true).write(true).open(&path) else { return };
        let longest = written(&file, DISK_BYTES / 2).unwrap_or_default();
        let Some((from, length)) = longest.into_iter().max_by_key(|(_, length)| *length) else {
            return;
        };
        let at = (from + length / 2) / BLOCK as u64 * BLOCK as u64;
        let (mut one, mut two) = ([0; BLOCK], [0; BLOCK]);
        let swapped = file
            .read_exact_at(&mut one, at)
            .and_then(|()| file.read_exact_at(&mut two, at + BLOCK as u64))
            .and_then(|()| file.write_all_at(&two, at))
            .and_then(|()| file.write_all_at(&one, at + BLOCK as u64));
        *done.lock().unwrap() = swapped.is_ok() && length >= 1 << 20;
    };
    let outcome = run_on(&scene, &disk, swap).await??;
    assert!(*moved.lock().unwrap());
    assert_eq!(outcome.exit_code, 7, "{}", scene.heard.everything());
    assert_eq!(scene.heard.stdout("main"), ["written", REFUSED]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_too_small_is_an_error_and_none_is_memory() -> Result<()> {
    let scene = pod("stat -f -c %T /free /data")?;
    let disk = disk_file(&scene, 8 << 20)?;
    match run_on(&scene, &disk, || ()).await? {
        Ok(outcome) => anyhow::bail!("not refused: {outcome:?}"),
        Err(error) => {
            let text = error.to_string();
            assert!(
                text.contains("scratch disk: found 16384 sectors, expected at least"),
                "{text}"
            );
        }
    }
    let mut launch = scene.launch(scene.prepared().await?).await?;
    launch.sandbox.scratch = None;
    let outcome = scene.start(launch).await?;
    assert_eq!(outcome.exit_code, 0, "{}", scene.heard.everything());
    assert_eq!(scene.heard.stdout("main"), ["tmpfs", "tmpfs"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_beyond_the_disk_are_an_error() -> Result<()> {
    let scene = pod("echo ran")?;
    let disk = disk_file(&scene, 36 << 20)?;
    match run_on(&scene, &disk, || ()).await? {
        Ok(outcome) => anyhow::bail!("not refused: {outcome:?}"),
        Err(error) => {
            let text = error.to_string();
            assert!(text.contains("volume \"data\" with its limit needs"), "{text}");
        }
    }
    assert_eq!(scene.heard.everything(), "");
    Ok(())
}

/// A tmpfs of this size, taken away in the end.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn mount(folder: &Path, size: &str) -> Result<Self> {
        let at = folder.join("small");
        std::fs::create_dir(&at)?;
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(&at);
        anyhow::ensure!(mount.status()?.success(), "mounting a tmpfs failed");
        Ok(Self(at))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_of_the_host_is_an_error_in_the_container() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: not root: a small file system cannot be mounted");
        return Ok(());
    }
    let script = "dd if=/dev/zero of=/free/f bs=1048576 count=64 conv=fsync 2>&1 | grep -c 'rror'; \
        test -e /memory && echo still here";
    let scene = pod(script)?;
    let small = SmallDisk::mount(scene.folder(), "24m")?;
    let disk = small.0.join("scratch");
    File::create(&disk)?.set_len(DISK_BYTES)?;
    let outcome = run_on(&scene, &disk, || ()).await??;
    assert_eq!(scene.heard.stdout("main"), ["1", "still here"], "{}", scene.heard.everything());
    assert_eq!(outcome.exit_code, 0);
    Ok(())
}

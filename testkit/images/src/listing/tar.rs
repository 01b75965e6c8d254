//! A layer tar by way of the `tar` crate: another reading of the same bytes than the project's own.

use std::collections::BTreeMap;
use std::io::{self, Read};

use ah_digest::Sha256;
use tar::{Archive, EntryType};

use super::{Line, Listing, escape};

/// The listing that a mounted layer image must have, overlayfs marks included, from an unpacked layer tar that
/// conversion accepts.
///
/// # Errors
/// When the tar cannot be read.
pub fn from_tar(tar: &[u8]) -> io::Result<Listing> {
    let mut tree = Layer::default();
    tree.put(b"/".to_vec(), implicit());
    let mut archive = Archive::new(tar);
    for (entry, pax) in archive.entries()?.zip(pax_of_entries(tar)) {
        tree.apply(entry?, &pax)?;
    }
    Ok(tree.listing())
}

/// Files by number, so that hard links share one.
#[derive(Default)]
struct Layer {
    paths: BTreeMap<Vec<u8>, usize>,
    files: Vec<Line>,
}

type Pax = BTreeMap<Vec<u8>, Vec<u8>>;

impl Layer {
    fn put(&mut self, path: Vec<u8>, line: Line) {
        self.paths.insert(path, self.files.len());
        self.files.push(line);
    }

    fn at(&mut self, path: &[u8]) -> Option<&mut Line> {
        let number = *self.paths.get(path)?;
        self.files.get_mut(number)
    }

    fn apply<R: Read>(&mut self, mut entry: tar::Entry<'_, R>, pax: &Pax) -> io::Result<()> {
        let raw = match pax.get(&b"GNU.sparse.name"[..]).or(pax.get(&b"path"[..])) {
            Some(name) => name.clone(),
            None => entry.path_bytes().into_owned(),
        };
        let path = absolute(&raw);
        self.make_parents(&path);
        let (folder, name) = split(&path);
        if name == b".wh..wh..opq" {
            self.make_opaque(&folder);
        } else if let Some(hidden) = name.strip_prefix(b".wh.") {
            let hidden = super::join(&folder, hidden);
            match self.paths.contains_key(&hidden) {
                true => self.make_opaque(&hidden),
                false => self.put(hidden, whiteout()),
            }
        } else if entry.header().entry_type() == EntryType::Link {
            let target = absolute(&link_of(&entry, pax));
            let number = *self.paths.get(&target).ok_or(io::ErrorKind::NotFound)?;
            self.remove(&path);
            self.paths.insert(path, number);
        } else {
            let line = line(&mut entry, pax)?;
            self.replace(path, line);
        }
        Ok(())
    }

    fn replace(&mut self, path: Vec<u8>, mut line: Line) {
        let old = self.at(&path).map(|old| (old.kind, old.xattrs.contains_key(OPAQUE)));
        match (old, line.kind) {
            (Some(('d', opaque)), 'd') => {
                if opaque {
                    mark_opaque(&mut line);
                }
                if let Some(old) = self.at(&path) {
                    *old = line;
                }
                return;
            }
            (Some(_), 'd') => mark_opaque(&mut line),
            _ => {}
        }
        self.remove(&path);
        self.put(path, line);
    }

    fn remove(&mut self, path: &[u8]) {
        let below = super::join(path, b"");
        self.paths.retain(|known, _| known != path && !known.starts_with(&below));
    }

    fn make_parents(&mut self, path: &[u8]) {
        for end in (1..path.len()).filter(|end| path[*end] == b'/') {
            let parent = &path[..end];
            let whiteout = self.at(parent).map(|line| line.kind == 'c' && line.rdev == (0, 0));
            match whiteout {
                None => self.put(parent.to_vec(), implicit()),
                Some(true) => {
                    self.put(parent.to_vec(), implicit());
                    self.make_opaque(parent);
                }
                Some(false) => {}
            }
        }
    }

    fn make_opaque(&mut self, path: &[u8]) {
        if let Some(line) = self.at(path).filter(|line| line.kind == 'd') {
            mark_opaque(line);
        }
    }

    fn listing(self) -> Listing {
        let mut links: BTreeMap<usize, u64> = BTreeMap::new();
        for (path, number) in &self.paths {
            let directory = self.files[*number].kind == 'd';
            *links.entry(*number).or_default() += if directory { 2 } else { 1 };
            let (folder, name) = split(path);
            if directory && !name.is_empty() {
                *links.entry(self.paths[&folder]).or_default() += 1;
            }
        }
        let line = |number: usize| Line { links: links[&number], ..self.files[number].clone() };
        self.paths.iter().map(|(path, number)| (path.clone(), line(*number))).collect()
    }
}

const OPAQUE: &[u8] = b"trusted.overlay.opaque";

fn mark_opaque(line: &mut Line) {
    line.xattrs.insert(OPAQUE.to_vec(), b"y".to_vec());
}

fn absolute(path: &[u8]) -> Vec<u8> {
    let parts = path.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b"."));
    [&b"/"[..], &parts.collect::<Vec<_>>().join(&b'/')].concat()
}

/// Folder and name of an absolute path; the root is its own folder, without a name.
fn split(path: &[u8]) -> (Vec<u8>, &[u8]) {
    let slash = path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
    (path[..slash.max(1)].to_vec(), &path[slash + 1..])
}

/// The pax records of each entry that is not itself an extended header. The `tar` crate ends a record at the first
/// newline and so cannot give values that have one inside.
fn pax_of_entries(mut tar: &[u8]) -> Vec<Pax> {
    let (mut all, mut next) = (Vec::new(), Pax::new());
    while let Some((header, rest)) = tar.split_first_chunk::<512>().filter(|(h, _)| h[0] != 0) {
        let header = tar::Header::from_byte_slice(header);
        let mut size = header.entry_size().unwrap_or(0) as usize;
        tar = rest;
        match header.entry_type() {
            EntryType::XHeader => next = records(&rest[..size]),
            EntryType::GNULongName | EntryType::GNULongLink | EntryType::XGlobalHeader => {}
            _ => {
                size = next.get(&b"size"[..]).map_or(size, |size| number(size) as usize);
                if header.as_gnu().is_some_and(|gnu| gnu.is_extended()) {
                    tar = &tar[512..];
                }
                all.push(std::mem::take(&mut next));
            }
        }
        tar = &tar[size.next_multiple_of(512)..];
    }
    all
}

fn records(mut data: &[u8]) -> Pax {
    let mut pax = Pax::new();
    while let Some(space) = data.iter().position(|byte| *byte == b' ') {
        let (record, rest) = data.split_at(number(&data[..space]) as usize);
        let record = &record[space + 1..record.len() - 1];
        let equals = record.iter().position(|byte| *byte == b'=').unwrap_or(0);
        pax.insert(record[..equals].to_vec(), record[equals + 1..].to_vec());
        data = rest;
    }
    pax
}

fn line<R: Read>(entry: &mut tar::Entry<'_, R>, pax: &Pax) -> io::Result<Line> {
    let header = entry.header().clone();
    let kind = match header.entry_type() {
        EntryType::Directory => 'd',
        EntryType::Symlink => 'l',
        EntryType::Char => 'c',
        EntryType::Block => 'b',
        EntryType::Fifo => 'p',
        _ => 'f',
    };
    let mut line = Line {
        kind,
        mode: header.mode()? & 0o7777,
        uid: id(pax, b"uid", header.uid()?),
        gid: id(pax, b"gid", header.gid()?),
        mtime: time(pax).unwrap_or((header.mtime()? as i64, 0)),
        ..implicit()
    };
    for (key, value) in pax {
        if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
            line.xattrs.insert(name.to_vec(), value.clone());
        }
    }
    match kind {
        'c' | 'b' => {
            line.rdev = (
                header.device_major()?.unwrap_or_default(),
                header.device_minor()?.unwrap_or_default(),
            );
        }
        'l' => {
            let target = link_of(entry, pax);
            (line.size, line.content) = (target.len() as u64, escape(&target));
        }
        'f' => {
            let mut data = Vec::new();
            entry.read_to_end(&mut data)?;
            if let Some(size) = pax.get(&b"GNU.sparse.realsize"[..]) {
                data = unfold(&data, number(size));
            }
            (line.size, line.content) = (data.len() as u64, Sha256::of(&data).to_string());
        }
        _ => {}
    }
    Ok(line)
}

fn link_of<R: Read>(entry: &tar::Entry<'_, R>, pax: &Pax) -> Vec<u8> {
    match pax.get(&b"linkpath"[..]) {
        Some(target) => target.clone(),
        None => entry.link_name_bytes().unwrap_or_default().into_owned(),
    }
}

/// A pax 1.0 sparse body in full.
fn unfold(body: &[u8], size: u64) -> Vec<u8> {
    let mut lines = body.split(|byte| *byte == b'\n').map(number);
    let count = lines.next().unwrap_or(0);
    let regions: Vec<(u64, u64)> =
        (0..count).filter_map(|_| Some((lines.next()?, lines.next()?))).collect();
    let data: u64 = regions.iter().map(|(_, length)| length).sum();
    let mut from = &body[body.len() - data as usize..];
    let mut whole = vec![0; size as usize];
    for (offset, length) in regions {
        let (now, later) = from.split_at(length as usize);
        whole[offset as usize..(offset + length) as usize].copy_from_slice(now);
        from = later;
    }
    whole
}

fn number(text: &[u8]) -> u64 {
    String::from_utf8_lossy(text).parse().unwrap_or(0)
}

fn id(pax: &Pax, key: &[u8], header: u64) -> u32 {
    pax.get(key).map_or(header, |value| number(value)) as u32
}

fn time(pax: &Pax) -> Option<(i64, u32)> {
    let text = String::from_utf8_lossy(pax.get(&b"mtime"[..])?).into_owned();
    match text.split_once('.') {
        Some((seconds, fraction)) => {
            Some((seconds.parse().ok()?, format!("{fraction:0<9}")[..9].parse().ok()?))
        }
        None => Some((text.parse().ok()?, 0)),
    }
}

fn implicit() -> Line {
    Line {
        kind: 'd',
        mode: 0o755,
        uid: 0,
        gid: 0,
        size: 0,
        rdev: (0, 0),
        links: 0,
        mtime: (0, 0),
        xattrs: BTreeMap::new(),
        content: "-".into(),
    }
}

fn whiteout() -> Line {
    Line { kind: 'c', mode: 0, ..implicit() }
}

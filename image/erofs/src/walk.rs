use std::collections::HashMap;

use crate::error::ReadError;
use crate::format;
use crate::reader::{FileKind, Image, Inode, ReadAt};
use crate::{MAX_DIRENTS, MAX_INODES};

impl Inode {
    fn dirent_type(&self) -> u8 {
        format::dirent_type(match self.kind {
            FileKind::Directory => format::S_IFDIR,
            FileKind::File => format::S_IFREG,
            FileKind::Symlink => format::S_IFLNK,
            FileKind::CharDevice { .. } => format::S_IFCHR,
            FileKind::BlockDevice { .. } => format::S_IFBLK,
            FileKind::Fifo => format::S_IFIFO,
            FileKind::Socket => format::S_IFSOCK,
        })
    }
}

impl<R: ReadAt> Image<R> {
    /// Every path and its inode, parents before what is in them; the root is `/`.
    ///
    /// Ends on any image: a directory that is reached twice, a wrong `..`, a type or a link count that differs from
    /// what is there are refused.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn walk(&self) -> Result<Vec<(Vec<u8>, Inode)>, ReadError> {
        let root = self.root()?;
        // Links counted, and links stated.
        let mut links: HashMap<u64, (u32, u32)> = HashMap::from([(root.nid, (2, root.links))]);
        let mut found = vec![(b"/".to_vec(), root)];
        let mut parents = vec![0];
        let mut at = 0;
        while let Some((path, inode)) = found.get(at).cloned() {
            if inode.kind == FileKind::Directory {
                let parent = found.get(parents[at]).map(|(_, parent)| parent.nid);
                self.enter(&path, &inode, parent, &mut found, &mut links)?;
                parents.resize(found.len(), at);
            }
            at += 1;
        }
        match links.iter().find(|(_, (counted, stated))| counted != stated) {
            Some((nid, _)) => Err(ReadError::Structure { nid: *nid, what: "wrong link count" }),
            None if links.len() as u64 != self.inodes() => {
                Err(ReadError::Field { what: "inode count", found: self.inodes() })
            }
            None => Ok(found),
        }
    }

    fn enter(
        &self,
        path: &[u8],
        directory: &Inode,
        parent: Option<u64>,
        found: &mut Vec<(Vec<u8>, Inode)>,
        links: &mut HashMap<u64, (u32, u32)>,
    ) -> Result<(), ReadError> {
        let wrong = |nid, what| Err(ReadError::Structure { nid, what });
        let (entries, up) = self.read_dir_and_parent(directory)?;
        if Some(up) != parent {
            return wrong(directory.nid, ".. names another directory");
        }
        if found.len() + entries.len() > MAX_DIRENTS || links.len() > MAX_INODES {
            let (what, expected) = ("number of files", MAX_DIRENTS as u64);
            return Err(ReadError::TooLarge { what, found: found.len() as u64, expected });
        }
        for entry in entries {
            let inode = self.inode(entry.nid)?;
            if inode.dirent_type() != entry.file_type {
                return wrong(inode.nid, "entry of another type");
            }
            let is_directory = inode.kind == FileKind::Directory;
            match links.get_mut(&inode.nid) {
                Some(_) if is_directory => return wrong(inode.nid, "directory with two names"),
                Some((counted, _)) => *counted += 1,
                None => {
                    links.insert(inode.nid, (if is_directory { 2 } else { 1 }, inode.links));
                }
            }
            if is_directory && let Some((counted, _)) = links.get_mut(&directory.nid) {
                *counted += 1;
            }
            let separator: &[u8] = if path.ends_with(b"/") { b"" } else { b"/" };
            found.push(([path, separator, &entry.name].concat(), inode));
        }
        Ok(())
    }
}

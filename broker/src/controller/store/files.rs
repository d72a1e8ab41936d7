//! The few file operations that the store is made of, and the real ones. Tests put a disk with
//! power cuts in their place.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Files of one directory, by name.
pub(crate) trait Files {
    /// Every name.
    fn list(&self) -> io::Result<Vec<String>>;
    /// All bytes of a file.
    fn read(&self, name: &str) -> io::Result<Vec<u8>>;
    /// Makes an empty file, also in place of another.
    fn create(&mut self, name: &str) -> io::Result<()>;
    /// Writes all bytes at a position; the file grows as needed.
    fn write_at(&mut self, name: &str, position: u64, bytes: &[u8]) -> io::Result<()>;
    /// Cuts a file.
    fn set_len(&mut self, name: &str, bytes: u64) -> io::Result<()>;
    /// Makes a file's bytes and length durable.
    fn sync(&mut self, name: &str) -> io::Result<()>;
    /// Gives a file another name, also that of another.
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&mut self, name: &str) -> io::Result<()>;
    /// Makes the names durable.
    fn sync_directory(&mut self) -> io::Result<()>;
}

/// Files of a real directory. A file that was written stays open, so that its next sync hears of
/// every write that failed since.
#[derive(Debug)]
pub(crate) struct DiskFiles {
    directory: PathBuf,
    open: HashMap<String, File>,
}

impl DiskFiles {
    /// The files of a directory, which is made durably when it isn't there; its parent is.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn in_directory(directory: &Path) -> io::Result<Self> {
        match fs::create_dir(directory) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            result => result?,
        }
        if let Some(parent) = directory
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty())
        {
            File::open(parent)?.sync_all()?;
        }
        Ok(Self {
            directory: directory.to_owned(),
            open: HashMap::new(),
        })
    }

    /// The files of a directory that is there already.
    pub(super) fn already_in(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
            open: HashMap::new(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn file(&mut self, name: &str) -> io::Result<&File> {
        if !self.open.contains_key(name) {
            let file = OpenOptions::new().write(true).open(self.path(name))?;
            self.open.insert(name.to_owned(), file);
        }
        Ok(&self.open[name])
    }
}

impl Files for DiskFiles {
    fn list(&self) -> io::Result<Vec<String>> {
        let names = fs::read_dir(&self.directory)?;
        names
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect()
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        fs::read(self.path(name))
    }

    fn create(&mut self, name: &str) -> io::Result<()> {
        let file = File::create(self.path(name))?;
        self.open.insert(name.to_owned(), file);
        Ok(())
    }

    fn write_at(&mut self, name: &str, position: u64, bytes: &[u8]) -> io::Result<()> {
        self.file(name)?.write_all_at(bytes, position)
    }

    fn set_len(&mut self, name: &str, bytes: u64) -> io::Result<()> {
        self.file(name)?.set_len(bytes)
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        self.file(name)?.sync_data()
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path(from), self.path(to))?;
        self.open.remove(to);
        if let Some(file) = self.open.remove(from) {
            self.open.insert(to.to_owned(), file);
        }
        Ok(())
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.open.remove(name);
        fs::remove_file(self.path(name))
    }

    fn sync_directory(&mut self) -> io::Result<()> {
        File::open(&self.directory)?.sync_all()
    }
}

/// Files that are looked at and stay as they are, whatever is asked for.
#[derive(Debug)]
pub(super) struct Untouched<F>(pub(super) F);

impl<F: Files> Files for Untouched<F> {
    fn list(&self) -> io::Result<Vec<String>> {
        self.0.list()
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        self.0.read(name)
    }

    fn create(&mut self, _: &str) -> io::Result<()> {
        Ok(())
    }

    fn write_at(&mut self, _: &str, _: u64, _: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn set_len(&mut self, _: &str, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn sync(&mut self, _: &str) -> io::Result<()> {
        Ok(())
    }

    fn rename(&mut self, _: &str, _: &str) -> io::Result<()> {
        Ok(())
    }

    fn remove(&mut self, _: &str) -> io::Result<()> {
        Ok(())
    }

    fn sync_directory(&mut self) -> io::Result<()> {
        Ok(())
    }
}

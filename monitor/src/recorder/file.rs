//! The incident file: JSON Lines, rotated by size. Own code, since the crates for it neither tell of a failed write nor
//! take back half a line.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

/// The owner writes, the group reads.
const MODE: u32 = 0o640;

/// Where incidents are written, and how much of them is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileOptions {
    /// The file.
    pub path: PathBuf,
    /// Bytes it may have.
    pub size: u64,
    /// Files kept beside it, `PATH.1` being the youngest.
    pub count: u32,
}

/// The file, open while it can be written. Lines are whole, whatever happens.
#[derive(Debug)]
pub struct IncidentFile {
    options: FileOptions,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    file: File,
    length: u64,
}

impl IncidentFile {
    /// Opens nothing yet.
    pub fn new(options: FileOptions) -> Self {
        Self { options, open: None }
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.options.path
    }

    /// Appends one line; rotates first where it would make the file too long.
    ///
    /// # Errors
    /// When it could not be written. Nothing of it is in the file then; the next call tries anew.
    pub fn append(&mut self, line: &str) -> io::Result<()> {
        let line = format!("{line}\n");
        let length = line.len() as u64;
        let mut open = match self.open.take() {
            Some(open) => open,
            None => Open::append_to(&self.options.path)?,
        };
        if open.length > 0 && open.length + length > self.options.size {
            drop(open);
            self.rotate()?;
            open = Open::append_to(&self.options.path)?;
        }
        if let Err(error) = open.file.write_all(line.as_bytes()) {
            // What a full disk has taken of the line; where even this fails, opening looks again.
            drop(open.file.set_len(open.length));
            return Err(error);
        }
        open.length += length;
        self.open = Some(open);
        Ok(())
    }

    fn rotate(&self) -> io::Result<()> {
        if self.options.count == 0 {
            return fs::remove_file(&self.options.path);
        }
        for number in (1..self.options.count).rev() {
            match fs::rename(self.numbered(number), self.numbered(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        fs::rename(&self.options.path, self.numbered(1))
    }

    fn numbered(&self, number: u32) -> PathBuf {
        let mut path = self.options.path.clone().into_os_string();
        path.push(format!(".{number}"));
        path.into()
    }
}

impl Open {
    /// Opens or makes the file, and cuts off half a line that a killed daemon or a full disk has left.
    fn append_to(path: &Path) -> io::Result<Self> {
        let is_new = !path.exists();
        let mut file = OpenOptions::new().create(true).append(true).read(true).mode(MODE).open(path)?;
        if is_new {
            // Whatever the umask says.
            file.set_permissions(Permissions::from_mode(MODE))?;
        }
        let length = whole_lines(&mut file)?;
        file.set_len(length)?;
        Ok(Self { file, length })
    }
}

/// The length up to the end of the last whole line.
fn whole_lines(file: &mut File) -> io::Result<u64> {
    let end = file.seek(SeekFrom::End(0))?;
    let mut last = [0];
    if end == 0 || (file.read_at(&mut last, end - 1)? == 1 && last == *b"\n") {
        return Ok(end);
    }
    file.rewind()?;
    let mut text = Vec::new();
    file.read_to_end(&mut text)?;
    let whole = text.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
    Ok(whole as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(directory: &Path, size: u64, count: u32) -> FileOptions {
        FileOptions { path: directory.join("incidents"), size, count }
    }

    fn contents(path: &Path) -> String {
        fs::read_to_string(path).unwrap_or_default()
    }

    #[test]
    fn it_rotates_and_keeps_so_many() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut file = IncidentFile::new(options(directory.path(), 6, 2));
        for line in ["a1", "a2", "b1", "b2", "c1", "c2", "d1"] {
            file.append(line).expect("written");
        }
        let kept = ["incidents", "incidents.1", "incidents.2", "incidents.3"]
            .map(|name| contents(&directory.path().join(name)));
        assert_eq!(kept, ["d1\n", "c1\nc2\n", "b1\nb2\n", ""]);
    }

    #[test]
    fn nothing_beside_it_is_kept_where_none_is_wanted() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut file = IncidentFile::new(options(directory.path(), 3, 0));
        for line in ["a1", "b1"] {
            file.append(line).expect("written");
        }
        assert_eq!(contents(file.path()), "b1\n");
        assert_eq!(fs::read_dir(directory.path()).expect("a directory").count(), 1);
    }

    #[test]
    fn a_line_longer_than_the_file_is_written_alone() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut file = IncidentFile::new(options(directory.path(), 3, 1));
        for line in ["a1", "much longer", "b1"] {
            file.append(line).expect("written");
        }
        assert_eq!(contents(file.path()), "b1\n");
        assert_eq!(contents(&directory.path().join("incidents.1")), "much longer\n");
    }

    #[test]
    fn it_goes_on_where_it_was_and_drops_half_a_line() {
        let directory = tempfile::tempdir().expect("a directory");
        let options = options(directory.path(), 100, 1);
        for (before, after) in [("a\n", "a\nb\n"), ("a\nhal", "a\nb\n"), ("hal", "b\n"), ("", "b\n")] {
            fs::write(&options.path, before).expect("written");
            IncidentFile::new(options.clone()).append("b").expect("written");
            assert_eq!(contents(&options.path), after);
        }
    }

    #[test]
    fn the_group_may_read_and_nobody_else() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut file = IncidentFile::new(options(directory.path(), 100, 1));
        file.append("a").expect("written");
        let mode = fs::metadata(file.path()).expect("metadata").permissions().mode();
        assert_eq!(mode & 0o777, MODE);
    }

    #[test]
    fn it_resumes_when_it_can_be_written_again() {
        let directory = tempfile::tempdir().expect("a directory");
        let missing = directory.path().join("missing");
        let mut file = IncidentFile::new(options(&missing, 100, 1));
        file.append("a").expect_err("there is no such directory");
        fs::create_dir(&missing).expect("a directory");
        file.append("b").expect("written");
        assert_eq!(contents(file.path()), "b\n");
    }
}

//! What a process does to itself between its start in new namespaces and the program: an empty root, limits, no rights.
//!
//! This runs where memory is still shared with the process that started it (see [`super::spawn`]). Errors name the step
//! and hold the system's number; nothing here panics.

use std::ffi::{CStr, CString, c_ulong};
use std::io::{Error, Result};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetStatus, Scope,
};

use super::Limits;
use super::interpreter::Interpreter;

/// The user and group in the sandbox: `nobody`'s number nearly everywhere.
pub const NOBODY: u32 = 65534;

/// The one folder that can be written to.
pub const FOLDER: &str = "/tmp";

/// Where the new root is put together: a folder that every Linux has, and below which no interpreter lies.
const STAGE: &CStr = c"/proc";

/// A step that failed.
pub type Step = (&'static str, Error);

/// Everything that is needed, made ready before the process starts.
pub struct Walls {
    /// Source, below the old root, and place, below the new one.
    binds: Vec<(CString, CString, bool)>,
    links: Vec<(CString, CString)>,
    /// Folders of the new root that the others are put into, parents first.
    folders: Vec<CString>,
    root_options: CString,
    folder_options: CString,
    readable: Vec<PathBuf>,
    limits: Vec<(libc::__rlimit_resource_t, libc::rlim_t)>,
    /// Whether to become [`NOBODY`], from a root that has other users.
    changes_user: bool,
}

impl Walls {
    pub fn new(interpreter: &Interpreter, limits: &Limits, processes: u64, changes_user: bool) -> anyhow::Result<Self> {
        let inside = |path: &Path| c_string(&[STAGE.to_bytes(), path.as_os_str().as_bytes()].concat());
        let mut folders = vec![PathBuf::from(FOLDER), PathBuf::from("/dev")];
        let mut binds = Vec::new();
        let shown = interpreter.readable.iter().map(PathBuf::as_path).chain([Path::new("/dev/null")]);
        for path in shown.filter(|path| path.exists()) {
            folders.extend(path.ancestors().skip(1).map(Path::to_path_buf));
            if path.is_dir() {
                folders.push(path.to_path_buf());
            }
            binds.push((c_string(path.as_os_str().as_bytes())?, inside(path)?, path.is_dir()));
        }
        folders.retain(|path| path.parent().is_some());
        folders.sort();
        folders.dedup();
        let links = interpreter
            .links
            .iter()
            .map(|(link, target)| Ok((inside(link)?, c_string(target.as_os_str().as_bytes())?)));
        // The parent stops it before.
        let cpu = limits.cpu_seconds.ceil() as u64 + 1;
        let tmpfs = |options: String| c_string(options.as_bytes());
        Ok(Self {
            binds,
            links: links.collect::<anyhow::Result<_>>()?,
            folders: folders.iter().map(|path| inside(path)).collect::<anyhow::Result<_>>()?,
            root_options: tmpfs("size=64k,nr_inodes=256,mode=0755".into())?,
            folder_options: tmpfs(format!(
                "size={},nr_inodes={},mode=0700,uid={NOBODY},gid={NOBODY}",
                limits.disk.max(4096),
                limits.files.max(2)
            ))?,
            readable: interpreter.readable.clone(),
            limits: vec![
                (libc::RLIMIT_AS, limits.memory),
                (libc::RLIMIT_CPU, cpu),
                (libc::RLIMIT_FSIZE, limits.disk),
                (libc::RLIMIT_NOFILE, 64),
                (libc::RLIMIT_NPROC, processes),
                (libc::RLIMIT_CORE, 0),
                (libc::RLIMIT_MEMLOCK, 0),
                (libc::RLIMIT_MSGQUEUE, 0),
                (libc::RLIMIT_SIGPENDING, 64),
            ],
            changes_user,
        })
    }

    /// Puts up all walls but the filter of system calls. Afterwards the process sees an empty root with what is readable
    /// and the temporary folder, in which it is, and has no rights at all.
    ///
    /// # Errors
    /// The first step that the kernel refuses.
    pub fn put_up(&self) -> std::result::Result<(), Step> {
        self.replace_root()?;
        self.landlock()?;
        for (resource, limit) in &self.limits {
            let mut given = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
            // SAFETY: the structs outlive the calls.
            unsafe {
                check("a limit (getrlimit)", libc::getrlimit(*resource, &mut given))?;
                // Whoever started the parent may have set it lower for all.
                let limit = (*limit).min(given.rlim_max);
                let limit = libc::rlimit { rlim_cur: limit, rlim_max: limit };
                check("a limit (setrlimit)", libc::setrlimit(*resource, &limit))?;
            }
        }
        self.give_up_rights()
    }

    fn replace_root(&self) -> std::result::Result<(), Step> {
        // SAFETY: sets a number of this process. The new root is for another user than the one who makes it.
        unsafe { libc::umask(0o022) };
        // What is mounted from here on stays in this namespace.
        mount(None, c"/", None, libc::MS_REC | libc::MS_PRIVATE, None)
            .map_err(|e| ("a mount namespace of its own", e))?;
        let flags = libc::MS_NOSUID | libc::MS_NODEV;
        mount(Some(c"tmpfs"), STAGE, Some(c"tmpfs"), flags, Some(&self.root_options)).map_err(|e| ("a new root", e))?;
        for folder in &self.folders {
            // SAFETY: the path is a C string.
            check("a folder of the new root", unsafe { libc::mkdir(folder.as_ptr(), 0o755) })?;
        }
        for (link, target) in &self.links {
            // SAFETY: both are C strings.
            check("a link of the new root", unsafe { libc::symlink(target.as_ptr(), link.as_ptr()) })?;
        }
        for (source, target, is_folder) in &self.binds {
            if !is_folder {
                // SAFETY: the path is a C string.
                let file =
                    unsafe { libc::open(target.as_ptr(), libc::O_CREAT | libc::O_WRONLY | libc::O_CLOEXEC, 0o444) };
                check("a file of the new root", file)?;
                // SAFETY: just opened.
                unsafe { libc::close(file) };
            }
            let what = "the interpreter's files, read-only (mount)";
            mount(Some(source), target, None, libc::MS_BIND | libc::MS_REC, None).map_err(|e| (what, e))?;
        }
        let is_null = |(source, ..): &&(CString, CString, bool)| source.as_bytes() == b"/dev/null";
        for (_, target, _) in self.binds.iter().filter(|bind| !is_null(bind)) {
            read_only(target, true)?;
        }
        let flags = flags | libc::MS_NOEXEC;
        let options = Some(&*self.folder_options);
        mount(Some(c"tmpfs"), c"/proc/tmp", Some(c"tmpfs"), flags, options)
            .map_err(|e| ("a temporary folder (tmpfs)", e))?;
        read_only(STAGE, false)?;
        // SAFETY: C strings, no pointers kept. The old root is put on top of the new one and taken away.
        unsafe {
            check("the new root (chdir)", libc::chdir(STAGE.as_ptr()))?;
            check(
                "the new root (pivot_root)",
                libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()) as i32,
            )?;
            check("no old root (umount)", libc::umount2(c".".as_ptr(), libc::MNT_DETACH))?;
            check("the new root (chdir)", libc::chdir(c"/tmp".as_ptr()))?;
            check("a host name (sethostname)", libc::sethostname(c"sandbox".as_ptr(), 7))
        }
    }

    /// A second wall around the same files, where the kernel has it: it holds even if a mount were wrong.
    fn landlock(&self) -> std::result::Result<(), Step> {
        let abi = ABI::V6;
        let read = AccessFs::from_read(abi);
        let write = AccessFs::from_all(abi) & !AccessFs::Execute;
        let enforce = || -> std::result::Result<RulesetStatus, landlock::RulesetError> {
            let mut rules = Ruleset::default()
                .set_compatibility(CompatLevel::BestEffort)
                .handle_access(AccessFs::from_all(abi))?
                .handle_access(AccessNet::from_all(abi))?
                .scope(Scope::from_all(abi))?
                .create()?;
            let null = AccessFs::ReadFile | AccessFs::WriteFile;
            let places = self.readable.iter().map(|path| (path.as_path(), read));
            for (path, access) in places.chain([(Path::new(FOLDER), write), (Path::new("/dev/null"), null)]) {
                let access = if path.is_dir() { access } else { access & AccessFs::from_file(abi) };
                if let Ok(place) = PathFd::new(path) {
                    rules = rules.add_rule(PathBeneath::new(place, access))?;
                }
            }
            Ok(rules.restrict_self()?.ruleset)
        };
        enforce().map(drop).map_err(|_| ("a landlock ruleset", Error::last_os_error()))
    }

    fn give_up_rights(&self) -> std::result::Result<(), Step> {
        if self.changes_user {
            let id = libc::c_ulong::from(NOBODY);
            // As raw system calls: the C library's functions change all threads, and those are the parent's.
            // SAFETY: numbers and a null pointer with length 0.
            unsafe {
                check("no groups (setgroups)", libc::syscall(libc::SYS_setgroups, 0, std::ptr::null::<u32>()) as i32)?;
                check("an unprivileged group (setresgid)", libc::syscall(libc::SYS_setresgid, id, id, id) as i32)?;
                check("an unprivileged user (setresuid)", libc::syscall(libc::SYS_setresuid, id, id, id) as i32)?;
            }
        }
        const VERSION_3: u32 = 0x2008_0522;
        let header = [VERSION_3, 0u32];
        let none = [0u32; 6];
        // SAFETY: the two structs of capset(2), as arrays of their fields.
        unsafe {
            check("no capabilities (capset)", libc::syscall(libc::SYS_capset, header.as_ptr(), none.as_ptr()) as i32)?;
            check("no new rights (no_new_privs)", libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
            // Only after the change of the user, which would undo it.
            check("an end with its parent's", libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as c_ulong))?;
            check("a session of its own (setsid)", libc::setsid())
        }
    }
}

/// The error of a system call that gave a negative number.
pub fn check(what: &'static str, result: i32) -> std::result::Result<(), Step> {
    if result < 0 { Err((what, Error::last_os_error())) } else { Ok(()) }
}

fn c_string(bytes: &[u8]) -> anyhow::Result<CString> {
    Ok(CString::new(bytes)?)
}

fn mount(
    source: Option<&CStr>,
    target: &CStr,
    kind: Option<&CStr>,
    flags: c_ulong,
    options: Option<&CStr>,
) -> Result<()> {
    let pointer = |text: Option<&CStr>| text.map_or(std::ptr::null(), CStr::as_ptr);
    // SAFETY: C strings or null.
    match unsafe { libc::mount(pointer(source), target.as_ptr(), pointer(kind), flags, pointer(options).cast()) } {
        0 => Ok(()),
        _ => Err(Error::last_os_error()),
    }
}

/// Makes a mount, and with `all` those below it, read-only; what the host has set besides stays as it is.
fn read_only(target: &CStr, all: bool) -> std::result::Result<(), Step> {
    let set = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
    let attributes = libc::mount_attr { attr_set: set, attr_clr: 0, propagation: 0, userns_fd: 0 };
    let flags = if all { libc::AT_RECURSIVE } else { 0 };
    let size = size_of::<libc::mount_attr>();
    // SAFETY: a C string, and a struct of that size.
    let result =
        unsafe { libc::syscall(libc::SYS_mount_setattr, libc::AT_FDCWD, target.as_ptr(), flags, &attributes, size) };
    check("read-only mounts (mount_setattr, Linux 5.12)", result as i32)
}

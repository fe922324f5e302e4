//! Where the kernel does not give a wall nothing runs; where the parent dies nothing runs on.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use qstar::sandbox::Limits;

use super::hostile::in_namespaces;
use super::{lock, sandbox, script, system_gives_namespaces};

/// This test binary, running one ignored test alone.
fn alone(test: &str, before: &[&str]) -> Command {
    let binary = std::env::current_exe().unwrap();
    let mut words = before.iter().map(std::ffi::OsStr::new).chain([binary.as_os_str()]);
    let mut command = Command::new(words.next().unwrap());
    command.args(words).args(["--exact", test, "--ignored", "--nocapture"]).stdin(Stdio::null());
    command
}

#[test]
fn without_user_namespaces_it_refuses() {
    let _alone = lock();
    if !system_gives_namespaces() {
        return println!("skipped: this system gives no user namespaces that could be taken away again");
    }
    // In a user namespace in which no further one may be made.
    let script = "echo 0 > /proc/sys/user/max_user_namespaces && exec \"$@\"";
    let mut command =
        alone("refusal::says_whether_it_can_run", &["unshare", "--user", "--map-root-user", "sh", "-c", script, "sh"]);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        said.contains("refuses to run: this system does not give it user, mount, pid and network namespaces"),
        "{output:?}"
    );
}

#[test]
fn where_an_ordinary_user_is_root_it_runs() {
    let _alone = lock();
    if !system_gives_namespaces() {
        return println!("skipped: this system gives no user namespaces");
    }
    // A root that has no other users is what an ordinary user is: nobody else to become.
    let output = alone("refusal::says_whether_it_can_run", &["unshare", "--user", "--map-root-user"]).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("it runs"), "{output:?}");
}

#[test]
#[ignore = "run by the tests above, elsewhere"]
fn says_whether_it_can_run() {
    match qstar::sandbox::Sandbox::new(Limits::default()) {
        Ok(sandbox) if sandbox.run(&script("print(1)", "", "1")).unwrap().passed() => println!("it runs"),
        Ok(_) => println!("it gives wrong outcomes"),
        Err(error) => println!("{error:#}"),
    }
}

#[test]
fn programs_die_with_their_parent() {
    let Some((_, _alone)) = sandbox(Limits::default()) else { return };
    let before = in_namespaces();
    let mut child = alone("refusal::runs_for_long", &[]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let until = |what: &str, is_so: &dyn Fn() -> bool| {
        let begin = Instant::now();
        while !is_so() {
            assert!(begin.elapsed() < Duration::from_secs(20), "{what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    // The look at the walls ends by itself; the program stays.
    until("no program was started", &|| !in_namespaces().is_subset(&before));
    std::thread::sleep(Duration::from_millis(500));
    child.kill().unwrap();
    child.wait().unwrap();
    until("a program lives on", &|| in_namespaces().is_subset(&before));
}

#[test]
#[ignore = "run by the test above, and killed"]
fn runs_for_long() {
    let sandbox = qstar::sandbox::Sandbox::new(Limits { seconds: 60.0, ..Limits::default() }).unwrap();
    sandbox.run(&script("import time\ntime.sleep(50)", "", "")).unwrap();
}

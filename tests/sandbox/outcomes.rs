//! What an outcome says.

use std::time::Instant;

use qstar::sandbox::{Check, Limits, Program, Verdict};

use super::{program, sandbox, script};

#[test]
fn every_end_has_its_verdict() {
    let limits = Limits { cpu_seconds: 1.0, seconds: 3.0, memory: 128 << 20, output: 1000, ..Limits::default() };
    let Some((sandbox, _alone)) = sandbox(limits) else { return };
    let tests = ["assert f(2) == [4, 'x']"];
    let cases = [
        ("def f(x): return [x * x, 'x']", Verdict::Passed, ""),
        ("def f(x): return (x * x, 'x')", Verdict::Wrong, "assertion"),
        ("def f(x): return x / 0", Verdict::Exception, "ZeroDivisionError: division by zero"),
        ("def f(x) return x", Verdict::Exception, "SyntaxError"),
        ("def g(x): return x", Verdict::Exception, "NameError: the program does not define f"),
        ("class E(Exception): pass\ndef f(x): raise E('own')", Verdict::Exception, "E: own"),
        ("def f(x): exit(0)", Verdict::Exception, "SystemExit: 0"),
        ("def f(x):\n    while True: pass", Verdict::TimedOut, "1 s of processor time or 3 s"),
        ("def f(x): return bytearray(1 << 30)", Verdict::OutOfMemory, "MemoryError"),
        ("def f(x): print('x' * 2000)", Verdict::TooMuchOutput, "1000 bytes"),
        ("def f(x): return 'x' * (20 << 20)", Verdict::TooMuchOutput, "returned more"),
        ("import os\ndef f(x): os._exit(3)", Verdict::Exited, "exit code 3"),
        ("import os\ndef f(x): os.kill(os.getpid(), 9); os.close(4)", Verdict::Exited, ""),
        ("import ctypes\ndef f(x): ctypes.string_at(0)", Verdict::Crashed, "signal 11"),
    ];
    let programs: Vec<_> = cases.iter().map(|(code, ..)| program(code, &tests)).collect();
    for ((code, verdict, message), outcome) in cases.iter().zip(sandbox.run_all(&programs, 2, None).unwrap()) {
        assert_eq!(outcome.verdict, *verdict, "{code}: {outcome:?}");
        assert!(outcome.message.contains(message), "{code}: {outcome:?}");
    }
    let cases = [
        ("print(int(input()) + 1)", "41", "42\n", Verdict::Passed),
        ("print(int(input()))", "41", "42", Verdict::Wrong),
        ("import sys\nprint(sys.stdin.read())\nsys.exit()", "a b", "a  b", Verdict::Passed),
        ("print(42)\nraise ValueError('late')", "", "42", Verdict::Exception),
        ("import sys\nprint(42)\nsys.exit(3)", "", "42", Verdict::Exited),
        ("import os\nprint(42, flush=True)\nos._exit(0)", "", "42", Verdict::Passed),
        ("if __name__ == '__main__':\n    print(42)", "", "42", Verdict::Passed),
        ("x = bytearray(1 << 30)", "", "", Verdict::OutOfMemory),
        ("while True: print('y' * 100)", "", "", Verdict::TooMuchOutput),
        ("while True: pass", "", "", Verdict::TimedOut),
    ];
    let programs: Vec<_> = cases.iter().map(|(code, input, output, _)| script(code, input, output)).collect();
    for ((code, .., verdict), outcome) in cases.iter().zip(sandbox.run_all(&programs, 2, None).unwrap()) {
        assert_eq!(outcome.verdict, *verdict, "{code}: {outcome:?}");
    }
}

#[test]
fn what_a_program_prints_and_uses_is_told() {
    let Some((sandbox, _alone)) = sandbox(Limits::default()) else { return };
    let code = "import sys\nprint('loaded')\ndef f(x):\n    print('called', x, file=sys.stderr)\n    y = bytearray(100 << 20)\n    return len(y)";
    let outcome = sandbox.run(&program(code, &["assert f(1) == 100 << 20"])).unwrap();
    assert_eq!((&outcome.stdout[..], &outcome.stderr[..]), ("loaded\n", "called 1\n"), "{outcome:?}");
    let peak = outcome.peak_memory.unwrap();
    assert!((100 << 20..200 << 20).contains(&peak), "{peak}");
    assert!(outcome.seconds > 0.0 && outcome.seconds < 30.0);
}

/// Values of every kind reach the program and come back as they are.
#[test]
fn values_keep_their_kind() {
    let Some((sandbox, _alone)) = sandbox(Limits::default()) else { return };
    let values = [
        "None",
        "True",
        "-7",
        "10 ** 300",
        "-(1 << 62)",
        "1.5",
        "-0.0",
        "float('inf')",
        "1e-300",
        "'plain'",
        "'\"\\\\\\n\\u00e9\\U0001f600\\ud800'",
        "b'\\x00\\xff'",
        "[1, [2.0, None]]",
        "(1, (2,), ())",
        "{1: 'a', (2, 3): {'b': []}}",
        "frozenset({2})",
        "2j",
        "range(3, 9, 2)",
    ];
    let mut tests: Vec<String> = Vec::new();
    for value in values {
        tests.push(format!("assert f({value}) == {value} and type(f({value})) is type({value}) and repr(f({value})) == repr({value}), {value:?}"));
    }
    for test in [
        "assert f({1, 'x', frozenset({2})}) == {1, 'x', frozenset({2})}",
        "assert f(float('nan')) != f(float('nan'))",
        "import collections\nassert f(collections.Counter('aab')) == {'a': 2, 'b': 1}",
        "assert f(collections.deque([1])) == collections.deque([1])",
        "assert list(f(iter([1, 2]))) == [1, 2]",
        "assert f(x=3) == 3",
        "assert f(str) is not None",
    ] {
        tests.push(test.to_string());
    }
    let tests: Vec<&str> = tests.iter().map(String::as_str).collect();
    let outcome = sandbox.run(&program("def f(x):\n    return x", &tests)).unwrap();
    assert!(outcome.passed(), "{outcome:?}");
    let made = "import datetime, decimal, fractions, collections\nclass Own:\n    def __init__(self): self.x = [1]\n    def twice(self, y): return 2 * y\n\
        def f(kind):\n    return {'date': datetime.date(2020, 1, 2), 'time': datetime.datetime(2020, 1, 2, 3), 'decimal': decimal.Decimal('1.10'), 'fraction': fractions.Fraction(1, 3), \
        'map': map(str, [1, 2]), 'keys': {1: 2}.keys(), 'tuple': collections.namedtuple('P', 'a b')(1, 2), 'bool': type('B', (str,), {})('s'), 'own': Own()}[kind]";
    let outcome = sandbox
        .run(&program(
            made,
            &[
                "import datetime, decimal, fractions",
                "assert f('date') == datetime.date(2020, 1, 2) and f('time') == datetime.datetime(2020, 1, 2, 3)",
                "assert f('decimal') == decimal.Decimal('1.1') and f('fraction') == fractions.Fraction(1, 3)",
                "assert list(f('map')) == ['1', '2'] and list(f('keys')) == [1] and f('tuple') == (1, 2) and f('bool') == 's'",
                "own = f('own')\nassert own.x == [1] and own.twice(4) == 8 and own != f('own')\nown.x = 5\nassert own.x == 5",
            ],
        ))
        .unwrap();
    assert!(outcome.passed(), "{outcome:?}");
}

/// Names of the tests that the program defines as well stay Python's own.
#[test]
fn a_program_does_not_define_what_the_tests_use() {
    let Some((sandbox, _alone)) = sandbox(Limits::default()) else { return };
    let code =
        "def f(x): return 0\ndef abs(x): return 0\ndef len(x): return 0\ndef set(x): return 0\nAssertionError = None";
    let outcome = sandbox.run(&program(code, &["assert abs(f(1) - 5) < 1e-9"])).unwrap();
    assert_eq!(outcome.verdict, Verdict::Wrong, "{outcome:?}");
}

#[test]
fn functions_and_methods_are_called() {
    let Some((sandbox, _alone)) = sandbox(Limits::default()) else { return };
    let check = |cases: &str| Check::Calls { function: "add".into(), cases: cases.into() };
    let large = "123456789012345678901234567890";
    let cases = format!("{{\"inputs\": [[1, [2]], [{large}, []]], \"outputs\": [[1, 2], [[{large}]]]}}");
    for code in ["def add(a, b): return tuple([a] + b)", "class Solution:\n    def add(self, a, b): return [a] + b"] {
        let outcome = sandbox.run(&Program { code: code.into(), check: check(&cases) }).unwrap();
        assert!(outcome.passed(), "{code}: {outcome:?}");
    }
    for (code, verdict, message) in [
        ("def add(a, b): return [a]", Verdict::Wrong, "call 1: [1] instead of [1, 2]"),
        ("def add(a, b): return [float(a)] + b", Verdict::Wrong, "call 2: [1.2345678901234568e+29]"),
        ("def add(a, b): return {}['k']", Verdict::Exception, "KeyError: 'k'"),
    ] {
        let outcome = sandbox.run(&Program { code: code.into(), check: check(&cases) }).unwrap();
        assert_eq!(outcome.verdict, verdict, "{outcome:?}");
        assert!(outcome.message.starts_with(message), "{outcome:?}");
    }
    let keys = check("{\"inputs\": [[{\"1\": 2}]], \"outputs\": [{\"2\": 1}]}");
    let outcome =
        sandbox.run(&Program { code: "def add(a): return {v: k for k, v in a.items()}".into(), check: keys }).unwrap();
    assert!(outcome.passed(), "{outcome:?}");
}

#[test]
fn outcomes_are_in_the_order_of_the_programs() {
    let Some((sandbox, _alone)) = sandbox(Limits::default()) else { return };
    let programs: Vec<Program> = (0..24)
        .map(|i| {
            script(
                &format!("import time\ntime.sleep({})\nprint({i})", if i % 3 == 0 { 0.1 } else { 0.0 }),
                "",
                &i.to_string(),
            )
        })
        .collect();
    for threads in [1, 3] {
        let outcomes = sandbox.run_all(&programs, threads, None).unwrap();
        assert!(outcomes.iter().enumerate().all(|(i, outcome)| outcome.passed() && outcome.stdout == format!("{i}\n")));
    }
    assert!(sandbox.run_all(&[], 2, None).unwrap().is_empty());
}

#[test]
fn limits_without_sense_are_errors() {
    for (limits, what) in [
        (Limits { seconds: 0.0, ..Limits::default() }, "0 seconds"),
        (Limits { cpu_seconds: f64::NAN, ..Limits::default() }, "NaN seconds"),
        (Limits { memory: 1 << 20, ..Limits::default() }, "64 MiB"),
        (Limits { threads: 0, ..Limits::default() }, "one thread"),
    ] {
        let error = qstar::sandbox::Sandbox::new(limits).err().unwrap().to_string();
        assert!(error.contains(what), "{error}");
    }
    // The least of everything is enough for an interpreter.
    let least = Limits { memory: 64 << 20, output: 1, disk: 0, files: 0, threads: 1, ..Limits::default() };
    let Some((sandbox, _alone)) = sandbox(least) else { return };
    assert!(sandbox.run(&program("def f(x): return x", &["assert f(1) == 1"])).unwrap().passed());
    let none = Program { code: "print(1)".into(), check: Check::Output { cases: vec![] } };
    assert!(format!("{:#}", sandbox.run(&none).unwrap_err()).contains("no case"));
}

/// While other threads allocate and start processes of their own, and from a process that holds much memory.
#[test]
fn processes_start_beside_busy_threads() {
    let Some((sandbox, _alone)) = sandbox(Limits::default()) else { return };
    let held = vec![1u8; 512 << 20];
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                std::hint::black_box((0..100).map(|i| vec![0u8; i * 1000]).collect::<Vec<_>>());
                std::process::Command::new("true").status().unwrap();
            }
        });
        let begin = Instant::now();
        let outcomes = sandbox.run_all(&vec![script("print(1)", "", "1"); 40], 2, None).unwrap();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(outcomes.iter().all(|outcome| outcome.passed()));
        println!("40 programs in {:?}, with {} MiB held", begin.elapsed(), held.len() >> 20);
    });
}

/// Memory is shared with a process while it is started; what that changes for the parent is set back.
#[test]
fn the_parent_stays_as_it_was() {
    let Some((sandbox, _alone)) = sandbox(Limits::default()) else { return };
    let state = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let kept = ["Uid:", "Gid:", "Groups:", "NoNewPrivs:", "Seccomp:", "CapEff:", "SigBlk:", "SigIgn:", "SigCgt:"];
        let lines = status.lines().filter(|line| kept.iter().any(|name| line.starts_with(name)));
        // SAFETY: reads flags and limits.
        let (dumpable, limit) = unsafe {
            let mut limit = std::mem::zeroed();
            libc::getrlimit(libc::RLIMIT_AS, &mut limit);
            (libc::prctl(libc::PR_GET_DUMPABLE), limit.rlim_cur)
        };
        let namespaces =
            ["user", "mnt", "pid", "net"].map(|name| std::fs::read_link(format!("/proc/self/ns/{name}")).unwrap());
        (lines.map(str::to_string).collect::<Vec<_>>(), dumpable, limit, namespaces, std::env::current_dir().unwrap())
    };
    let before = state();
    let outcomes = sandbox.run_all(&vec![script("print(1)", "", "1"); 8], 4, None).unwrap();
    assert!(outcomes.iter().all(|outcome| outcome.passed()));
    assert_eq!(state(), before);
}

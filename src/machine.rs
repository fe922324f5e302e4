//! What a process sets once so that small tensors are fast: memory that is kept, threads that do not spin.

use std::sync::{Mutex, Once};

use anyhow::Result;

/// candle splits element-wise operations over threads that wait by spinning. With several runs
/// side by side, one a core, they only take time from each other.
pub const ONE_THREAD: (&str, &str) = ("CANDLE_NUM_THREADS", "1");

/// Keeps freed memory in the process instead of returning and faulting it in again for every tensor.
/// Cheap to call again.
pub fn keep_memory() {
    static DONE: Once = Once::new();
    DONE.call_once(|| {
        #[cfg(all(target_os = "linux", target_env = "gnu"))]
        // SAFETY: mallopt only sets thresholds of the allocator.
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 30);
            libc::mallopt(libc::M_TRIM_THRESHOLD, i32::MAX);
            libc::mallopt(libc::M_TOP_PAD, 64 << 20);
            // Of the heaps that other threads than the first get for their own, none holds a tensor of 64 MB: it is mapped
            // anew every time. One heap for all does; only many threads wait for each other there.
            if std::thread::available_parallelism().is_ok_and(|cores| cores.get() <= 8) {
                libc::mallopt(libc::M_ARENA_MAX, 1);
            }
        }
    });
}

/// From here on what this process prints is not seen; errors are. Of several processes that train together one speaks.
pub fn silence_stdout() {
    // SAFETY: both names are plain numbers of the system's; what was standard output is closed.
    unsafe {
        let nowhere = libc::open(c"/dev/null".as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        if nowhere >= 0 {
            libc::dup2(nowhere, libc::STDOUT_FILENO);
            libc::close(nowhere);
        }
    }
}

/// Does `jobs` on `workers` threads, each of which computes alone on one core, and gives the results in
/// the order of the jobs. After an error no further job begins.
///
/// # Errors
/// The first error of a job, in their order.
pub fn in_parallel<J: Send, R: Send>(
    workers: usize,
    jobs: Vec<J>,
    work: impl Fn(J) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    let mut results: Vec<Option<Result<R>>> = jobs.iter().map(|_| None).collect();
    let queue = Mutex::new(jobs.into_iter().zip(results.iter_mut()));
    let failed = std::sync::atomic::AtomicBool::new(false);
    let next = || queue.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).next();
    std::thread::scope(|scope| {
        for _ in 0..workers.max(1) {
            scope.spawn(|| {
                // Matrix products split their work over the pool that they are called in.
                let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a thread can be started");
                while !failed.load(std::sync::atomic::Ordering::Relaxed) {
                    let Some((job, result)) = next() else { break };
                    let done = pool.install(|| work(job));
                    failed.fetch_or(done.is_err(), std::sync::atomic::Ordering::Relaxed);
                    *result = Some(done);
                }
            });
        }
    });
    drop(queue);
    results.into_iter().flatten().collect()
}

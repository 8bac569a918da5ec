//! Work that everything else comes before: it takes the processor time that queries and the streams leave, and a share that
//! is small but never nothing when they leave none.

use std::panic::resume_unwind;
use strandline_proto::{Error, Result};

/// How much nicer than the rest of the process: beside a busy thread about a quarter of a core is left to it.
#[cfg(target_os = "linux")]
const NICENESS: i32 = 5;

/// Runs `job` at low priority, on a thread of its own, and gives its result when it is through.
///
/// The thread must be its own: one that has given way may not take its old priority back.
///
/// # Errors
/// Those of the job, and `ResourceExhausted` when the system has no thread to give.
pub fn in_background<T: Send>(job: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("background".to_owned());
        let started = thread.spawn_scoped(scope, || {
            give_way();
            job()
        });
        let started =
            started.map_err(|e| Error::exhausted(format!("no thread for background work: {e}")))?;
        started.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}

/// Lowers the priority of the calling thread.
#[cfg(target_os = "linux")]
#[expect(
    unsafe_code,
    reason = "the standard library has no function that sets a thread's priority"
)]
fn give_way() {
    // SAFETY: the call takes nothing but a number; for Linux it is about the calling thread. A refusal leaves all as it was.
    let _ = unsafe { libc::nice(NICENESS) };
}

/// Elsewhere priorities are those of processes.
#[cfg(not(target_os = "linux"))]
fn give_way() {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_gives_its_result_and_its_error() {
        assert_eq!(in_background(|| Ok(7)).unwrap(), 7);
        let failed = in_background(|| -> Result<()> { Err(Error::invalid("no")) });
        assert_eq!(failed.unwrap_err().message(), "no");
    }

    #[test]
    #[should_panic(expected = "on purpose")]
    fn a_panic_is_passed_on() {
        let _ = in_background(|| -> Result<()> { panic!("on purpose") });
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn only_the_background_gives_way() {
        let niceness = || {
            let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
            // The name may hold spaces; the state is the third field, the niceness the nineteenth.
            let fields = stat.rsplit_once(')').unwrap().1;
            let nice = fields.split_whitespace().nth(16).unwrap();
            nice.parse::<i32>().unwrap()
        };
        let before = niceness();
        let within = in_background(|| Ok(niceness())).unwrap();
        assert_eq!((within, niceness()), ((before + NICENESS).min(19), before));
    }
}

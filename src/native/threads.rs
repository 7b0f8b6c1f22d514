//! Which threads are inside a library: the question to answer before its code is unmapped.
//!
//! A thread is inside if it stands in the library's code or will return to it. A thread that the library started holds
//! the address of its start routine at the top of its stack; one that called in holds a return address. So the live
//! part of each other thread's stack is searched for anything that looks like an address of the library's code. A
//! number that only looks like one keeps the library mapped: the search errs to that side.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use super::maps::{Area, Maps};
use crate::escape_untrusted;

/// Returns the threads that are inside `library`, or may be because they are running whenever one looks.
///
/// Threads that are on their way out, or that run at the moment, are looked at again, for a second or so. Looks are
/// counted rather than time, because on a busy machine both sides wait for a processor. Nobody is inside only once a
/// whole list of threads has none that was not known to be outside before: while one that is new or has just ended is
/// on it, it may have started another one that is not.
pub(super) fn threads_or_doubts(library: &[Area]) -> io::Result<Vec<String>> {
    const LOOKS: u32 = 24;
    const LONGEST_PAUSE: Duration = Duration::from_millis(64);

    let mut search = Search::new(library)?;
    let (mut words, mut pause) = (Vec::new(), Duration::from_millis(1));
    for _ in 0..LOOKS {
        let Look { suspects, conclusive } = search.look(&Maps::read()?)?;
        if conclusive && suspects.is_empty() {
            return Ok(Vec::new());
        }
        if !suspects.is_empty() {
            std::thread::sleep(pause);
            pause = LONGEST_PAUSE.min(pause * 2);
        }
        words = suspects.into_iter().map(|suspect| suspect.words).collect();
    }
    if words.is_empty() {
        words.push("new ones all the time, faster than they can be looked at".to_owned());
    }
    Ok(words)
}

/// Returns the threads that are seen inside `library` at one look.
pub(super) fn threads(library: &[Area], maps: &Maps) -> io::Result<Vec<String>> {
    let found = Search::new(library)?.look(maps)?.suspects;
    Ok(found.into_iter().filter(|suspect| suspect.seen).map(|suspect| suspect.words).collect())
}

struct Search {
    code: Vec<Range<usize>>,
    memory: File,
    /// Threads that were seen outside. They stay there: nobody holds a lease by which to call in.
    outside: HashSet<String>,
}

/// What one look at all threads showed.
struct Look {
    suspects: Vec<Suspect>,
    /// Whether the list was whole, and had no thread that was not known to be outside before.
    conclusive: bool,
}

/// A thread that is inside, or that could not be looked at.
struct Suspect {
    words: String,
    seen: bool,
}

enum Position {
    Outside,
    Inside,
    Unknown,
}

impl Search {
    fn new(library: &[Area]) -> io::Result<Search> {
        let code = library.iter().filter(|area| area.executable).map(|area| area.range.clone()).collect();
        Ok(Search { code, memory: File::open("/proc/self/mem")?, outside: HashSet::from([own_thread()?]) })
    }

    fn look(&mut self, maps: &Maps) -> io::Result<Look> {
        let map = maps.all();
        let listed = fs::read_dir("/proc/self/task")?.collect::<io::Result<Vec<_>>>()?;
        // The list breaks off at a thread that ends while it is read.
        let mut look = Look { suspects: Vec::new(), conclusive: listed.len() == number_of_threads()? };
        for entry in listed {
            let thread = entry.file_name().to_string_lossy().into_owned();
            if self.outside.contains(&thread) {
                continue;
            }
            look.conclusive = false;
            match self.position(&thread, &map) {
                Position::Outside => drop(self.outside.insert(thread)),
                Position::Inside => look.suspects.push(Suspect { words: describe(&thread, ""), seen: true }),
                Position::Unknown => {
                    let words = describe(&thread, ", running, so its stack cannot be read");
                    look.suspects.push(Suspect { words, seen: false });
                }
            }
        }
        Ok(look)
    }

    fn position(&self, thread: &str, map: &[Area]) -> Position {
        let Ok(state) = fs::read_to_string(format!("/proc/self/task/{thread}/syscall")) else {
            // It ended since the folder was listed, or the system hides it.
            let ended = !fs::exists(format!("/proc/self/task/{thread}")).unwrap_or(true);
            return if ended { Position::Outside } else { Position::Unknown };
        };
        let Some((stack, instruction)) = registers(&state) else { return Position::Unknown };
        let Some(live) = live_part(stack, map) else { return Position::Unknown };
        let mut bytes = vec![0; live.len()];
        if self.memory.read_exact_at(&mut bytes, live.start as u64).is_err() {
            return Position::Unknown;
        }
        let mut words = bytes.as_chunks().0.iter().map(|word| usize::from_ne_bytes(*word));
        let inside = self.is_code(instruction) || words.any(|word| self.is_code(word));
        if inside { Position::Inside } else { Position::Outside }
    }

    fn is_code(&self, word: usize) -> bool {
        // Return addresses may be signed, in the bits above those of user space.
        const ADDRESS_BITS: usize = usize::MAX >> usize::BITS.saturating_sub(48);
        self.code.iter().any(|range| range.contains(&(word & ADDRESS_BITS)))
    }
}

/// Returns stack pointer and instruction pointer: the last two fields, unless the thread is running.
fn registers(state: &str) -> Option<(usize, usize)> {
    let mut fields = state.split_ascii_whitespace().rev();
    let mut number = || usize::from_str_radix(fields.next()?.strip_prefix("0x")?, 16).ok();
    let instruction = number()?;
    Some((number()?, instruction))
}

/// Returns the part from the stack pointer, and the red zone below it, to the end of the mapping: the thread's own record, with its
/// start routine, lies there.
fn live_part(stack: usize, map: &[Area]) -> Option<Range<usize>> {
    const RED_ZONE: usize = 128;
    let area = &map[map.partition_point(|area| area.range.end <= stack)..].first()?;
    let start = stack.saturating_sub(RED_ZONE).max(area.range.start);
    area.range.contains(&stack).then_some(start & !(size_of::<usize>() - 1)..area.range.end)
}

/// Returns how many threads this process has.
fn number_of_threads() -> io::Result<usize> {
    let status = fs::read_to_string("/proc/self/status")?;
    let number = status.lines().find_map(|line| line.strip_prefix("Threads:")?.trim().parse().ok());
    number.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Returns the calling thread, as `/proc/self/task` names it.
fn own_thread() -> io::Result<String> {
    let link = fs::read_link("/proc/thread-self")?;
    let name = link.file_name().ok_or(io::ErrorKind::InvalidData)?;
    Ok(name.to_string_lossy().into_owned())
}

fn describe(thread: &str, what: &str) -> String {
    let name = fs::read_to_string(format!("/proc/self/task/{thread}/comm")).unwrap_or_default();
    format!("{thread} ({}{what})", escape_untrusted(name.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_are_read_unless_the_thread_runs() {
        assert_eq!(registers("230 0x0 0x0 0x1 0x2 0x0 0x0 0x7ffe08 0x7fde4f\n"), Some((0x7ffe08, 0x7fde4f)));
        assert_eq!(registers("-1 0x7ffe08 0x7fde4f\n"), Some((0x7ffe08, 0x7fde4f)));
        assert_eq!(registers("running\n"), None);
    }

    #[test]
    fn a_thread_that_waits_in_this_program_is_found_and_lost_again() {
        let (started, is_started) = std::sync::mpsc::channel();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let waiting = std::thread::Builder::new().name("waits-inside".to_owned());
        let waiting = waiting.spawn(move || {
            started.send(()).unwrap();
            ended.recv().unwrap_err()
        });
        is_started.recv().unwrap();
        let own = Maps::read().unwrap().of(std::env::current_exe().unwrap().to_str().unwrap());
        let named = || {
            let found = threads(&own, &Maps::read().unwrap()).unwrap();
            found.iter().any(|thread| thread.contains("waits-inside"))
        };
        // It may still be on its way from the message to the wait, and run when it is looked at.
        while !named() {
            std::thread::yield_now();
        }
        drop(end);
        waiting.unwrap().join().unwrap();
        while named() {
            std::thread::yield_now();
        }
    }
}

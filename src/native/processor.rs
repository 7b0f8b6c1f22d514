//! The levels of x86-64, which images can say that they need and libraries are offered in.

/// The levels by their bits in `GNU_PROPERTY_X86_ISA_1_NEEDED`, the lowest first.
const LEVELS: [&str; 4] = ["x86-64", "x86-64-v2", "x86-64-v3", "x86-64-v4"];

/// Returns the highest level that is asked for; of what is not known, that there is something.
pub(super) fn highest(needed: u32) -> Option<&'static str> {
    let bit = needed.checked_ilog2()? as usize;
    match bit {
        // Every processor has it.
        0 => None,
        bit => Some(LEVELS.get(bit).copied().unwrap_or("x86-64-v5 or above")),
    }
}

/// Returns the highest level that is asked for, if this processor does not have all of what is.
pub(super) fn missing(needed: u32) -> Option<&'static str> {
    if cfg!(target_arch = "x86_64") && needed & !available() != 0 { highest(needed) } else { None }
}

/// Returns the levels that this processor has and that libraries are looked for in, the best first.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub(super) fn levels() -> impl Iterator<Item = &'static str> {
    let available = if cfg!(target_arch = "x86_64") { available() } else { 0 };
    (1..LEVELS.len()).rev().filter(move |level| available >> level & 1 == 1).map(|level| LEVELS[level])
}

#[cfg(target_arch = "x86_64")]
fn available() -> u32 {
    // Source: x86-64 psABI, "Micro-Architecture Levels"; what std cannot ask for comes with the others.
    macro_rules! has {
        ($($feature:tt),*) => { $(std::arch::is_x86_feature_detected!($feature))&&* };
    }
    let second = has!("cmpxchg16b", "popcnt", "sse3", "ssse3", "sse4.1", "sse4.2");
    let third = second && has!("avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "lzcnt", "movbe");
    let fourth = third && has!("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl");
    1 | u32::from(second) << 1 | u32::from(third) << 2 | u32::from(fourth) << 3
}

#[cfg(not(target_arch = "x86_64"))]
fn available() -> u32 {
    0
}

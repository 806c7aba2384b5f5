//! The guests that ship with Lockstep, built by the build script.

macro_rules! guests {
    ($($name:literal $constant:ident $variable:literal $what:literal;)*) => {
        $(
            #[doc = $what]
            pub const $constant: &[u8] = include_bytes!(env!($variable));
        )*
        /// Name, description and image of every guest that ships.
        pub const ALL: &[(&str, &str, &[u8])] = &[$(($name, $what, $constant)),*];
    };
}

guests! {
    "hello" HELLO "GUEST_HELLO" "prints a line";
    "echo" ECHO "GUEST_ECHO" "gives back what the console receives";
    "ticker" TICKER "GUEST_TICKER" "prints the time at 100 timer interrupts";
    "compute" COMPUTE "GUEST_COMPUTE" "computes with integers and floating point, prints a checksum";
    "kv" KV "GUEST_KV" "a Redis-protocol server on port 6379";
    "positions" POSITIONS "GUEST_POSITIONS" "takes an interrupt at every kind of position";
    "threads" THREADS "GUEST_THREADS" "a preemptive scheduler, switched by the timer inside computation";
    "threads-plain" THREADS_PLAIN "GUEST_THREADS_PLAIN" "`threads` without a count of its own: for a CPU that counts instructions";
    "chaos" CHAOS "GUEST_CHAOS" "everything at random from the machine's seed";
    "bench" BENCH "GUEST_BENCH" "kernels timed one by one";
    "latency" LATENCY "GUEST_LATENCY" "how late timer interrupts come";
    "latency-plain" LATENCY_PLAIN "GUEST_LATENCY_PLAIN" "`latency` without a count of its own: for a CPU that counts instructions";
    "mips" MIPS "GUEST_MIPS" "kernels that the machine times, for `lockstep bench cpu`";
    "crash" CRASH "GUEST_CRASH" "reads through a null pointer";
    "traps" TRAPS "GUEST_TRAPS" "halts while a debug exception is due, until the end of input";
    "stuck" STUCK "GUEST_STUCK" "loops for ever without an exit";
    "deaf" DEAF "GUEST_DEAF" "halts under a fast timer that is masked, until the end of input";
}

/// The image of the shipped guest with this name.
pub fn find(name: &str) -> Option<&'static [u8]> {
    let found = ALL.iter().find(|(shipped, _, _)| *shipped == name);
    found.map(|(_, _, image)| *image)
}

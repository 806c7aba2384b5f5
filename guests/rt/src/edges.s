# The software instruction counter. The compiler puts a call of this at every branch edge (LLVM's
# SanitizerCoverage, trace-pc; see .cargo/config.toml).
#
# To LLVM it is an ordinary C function without arguments: its callers expect to lose the caller-saved
# registers, the flags and what lies below RSP. It changes nothing but the flags all the same. SUB is
# one instruction, so an interrupt finds the edge counted or not; one that comes between SUB and OUT,
# and runs counted code before it returns, makes that leave too, and the machine adds a quantum each
# time: no edge is lost. The count is signed, and a machine that adds nothing is asked at every edge.
# SUB, unlike DEC, defines every flag (cpu.rs says why that matters).

.section .text
.balign 16
.global __sanitizer_cov_trace_pc
__sanitizer_cov_trace_pc:
    sub qword ptr [0x8018], 1       # ClockPage.edges_left
    jle 1f
    ret
1:  inc qword ptr [rip + quanta]
    out 0xe4, al                    # port::QUANTUM
    ret

.section .bss
.balign 8
.global quanta
quanta:
    .skip 8

# The software instruction counter. The compiler puts a call of this at every branch edge (LLVM's
# SanitizerCoverage, trace-pc; see .cargo/config.toml).
#
# To LLVM it is an ordinary C function without arguments: its callers expect to lose the caller-saved
# registers, the flags and what lies below RSP. In fact it changes only the flags. SUB is one
# instruction, so an interrupt finds the edge either counted or not. If an interrupt comes between SUB
# and OUT and its handler runs counted code, that code makes an exit too, and the machine adds a
# quantum for each exit: no edge is lost. The count is signed: on a machine that adds nothing, every
# further edge makes an exit. SUB, unlike DEC, defines every flag (cpu.rs says why that matters).

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

# A long computation can be stopped between two of its steps: a layer, a node, a tile, a sample. Who calls from Python has
# nothing else, since no thread of Python runs while Julia computes.

"what [`checkpoint`](@ref) calls: it throws where nobody waits for the computation any more"
const ASKED = Ref{Any}(nothing)

"nanoseconds from one question to the next, at least"
const PAUSE = Ref(UInt64(50_000_000))

"when the last one was asked"
const LAST = Ref(UInt64(0))

"ask, now and then, whether the computation is still wanted"
function checkpoint()
    ASKED[] === nothing && return nothing
    now = time_ns()
    now - LAST[] < PAUSE[] && return nothing
    LAST[] = now
    ASKED[]()
    return nothing
end
@non_differentiable checkpoint()

"""
    bridge_checkpoint(ask)

Have `ask()` called about twenty times a second while something long is computed; what it throws ends the computation.
"""
bridge_checkpoint(ask) = (ASKED[] = ask; nothing)

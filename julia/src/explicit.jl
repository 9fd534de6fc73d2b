# Models that hold neither their parameters nor their state, as Lux's: `model(x, ps, st)` gives an output and the next state.

"""
    Explicit(model, ps, st)

A model with its parameters and its state, as a network that is called with samples alone. All that it computes is the model's
own; `same` is what [`known_form`](@ref) says of it. Parameters have the names of their paths in `ps`.
"""
struct Explicit
    model::Any # untyped: what runs over parts of a network is compiled once, and not for every network
    ps::Any
    st::Any
    same::Any
end
Explicit(model, ps, st) = Explicit(model, ps, st, known_form(model, ps, st))

(e::Explicit)(x) = first(e.model(x, e.ps, e.st))

Base.show(io::IO, e::Explicit) = print(io, "Explicit(", nameof(typeof(e.model)), ")")

"""
    known_form(model, ps, st)

What computes the same as the model in inference mode: a layer that has a rule here, with the same arrays; or a `Chain`,
`SkipConnection` or `Parallel` of [`Explicit`](@ref) parts. `nothing` where none is known: then pullbacks are taken. Kernels
use it where it makes what the model makes of the samples, and pullbacks of the model where it does not.
"""
known_form(@nospecialize(model), @nospecialize(ps), @nospecialize(st)) = nothing

"""
    network(model, ps, st)

A model of Lux as a network that every function of this package takes: `UDLBridge.network(model, ps, st)(X)` are its outputs in
inference mode (`LuxCore.testmode(st)`). It holds the arrays of `ps` and `st` and changes none of them. There is a method where
LuxCore is loaded.

`ntk(model, ps, st, X)` is `ntk(UDLBridge.network(model, ps, st), X)`; so for [`UDLBridge.outputs`](@ref),
[`UDLBridge.jacobian`](@ref), [`input_jacobian`](@ref), [`input_hessian`](@ref), [`UDLBridge.parameters`](@ref),
[`UDLBridge.pull`](@ref) and [`UDLBridge.push`](@ref).

# Errors
`ArgumentError` where `ps` is no `NamedTuple`, and for a layer of Flux inside that is not in test mode, which Lux cannot
change.
"""
function network end

# Names: paths in `ps`, without the "0." of a chain of one.

function uses(e::Explicit, of, prefix, picks, within)
    field = of === fields ? :ps : :st
    return found_uses(getfield(e, field), prefix, Any[picks; g -> part(g, field)], within)
end

function uses(chain::Chain{Tuple{Explicit}}, of, prefix, picks, within)
    return uses(only(chain.layers), of, prefix, Any[picks; g -> part(part(g, :layers), 1)], within)
end

takes_tokens(e::Explicit) = takes_tokens(e.same)

observed(e::Explicit, x, see) = e.same === nothing ? as_whole(e, x, see) : observed_inside(e.same, x, see)

as_whole(layer, x, see) = has_parameters(layer) ? see(Whole(layer), x) : layer(x)

function keeps_promise(e::Explicit, x, whole)
    e.same === nothing && return true
    try
        return invoke(keeps_promise, Tuple{Any,Any,Any}, e, x, whole)
    catch error
        # What the model takes, its known form may not: tuples between layers.
        error isa InterruptException && rethrow()
        return false
    end
end

function observed_pullback(e::Explicit, x, see::Recorder)
    return e.same === nothing ? single_pullback(e, x, see) : whole_pullback(e.same, x, see)
end

# The derivatives are the model's own, taken part by part, so that Zygote never sees a whole network.
function observed_pullback(e::Explicit, x, see::Observer)
    parted = e.same isa Union{Chain,SkipConnection,Parallel} && !(x isa Tuple)
    return parted ? observed_pullback(e.same, x, see) : single_pullback(e, x, see)
end

in_place(e::Explicit, path) = in_place(something(e.same, e.model), path)

for_duals(e::Explicit) = e.same === nothing ? e : for_duals(Chain(e.same))
carrying(e::Explicit) = for_duals(e)

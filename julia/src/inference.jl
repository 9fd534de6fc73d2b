"""
    inference(model) -> Chain

The chain in inference mode, with the same arrays; a layer that is no chain is taken as a chain of one. The chain itself
keeps its mode: whoever asks for a kernel in the course of a training goes on with the training as before.

# Errors
`ArgumentError` for a chain that has no kernel of its own in this sense: a layer with a mode that was put into training
mode (`Flux.trainmode!`), whose samples touch each other or whose outputs are random; `rrelu`, which is always random; a
`BatchNorm` that keeps no statistics; an array that two layers share, whose gradient is the sum over its places; a
`Parallel` that is not one of two branches; a chain without layers; parameters that are no real floating-point numbers.
"""
function inference(@nospecialize(model))
    chain = as_chain(model)
    isempty(chain.layers) && throw(ArgumentError("the chain has no layers; allowed: one or more"))
    check_shared(leaves(chain))
    number_type(chain) # refuses what is no number
    inside = parts!(Any[], Base.IdSet{Any}(), chain)
    any(part -> part === NNlib.rrelu, inside) &&
        throw(ArgumentError("rrelu draws its slope at random, in inference mode too; use leakyrelu"))
    modes = filter(has_mode, inside)
    foreach(check_inference, modes)
    all(layer -> layer.active === false, modes) && return chain
    leaf(layer) = has_mode(layer) || Flux.Functors.isleaf(layer)
    return Flux.fmap(at_rest, chain; exclude=leaf)
end

"a network and all that is in it, each once; Flux's own walks are compiled for every network"
function parts!(found::Vector{Any}, seen, @nospecialize(x))
    (x isa Union{Type,Module} || x in seen) && return found
    push!(seen, x)
    push!(found, x)
    Flux.Functors.isleaf(x) || foreach(child -> parts!(found, seen, child), values(Flux.Functors.children(x)))
    return found
end

"a chain of one layer for a layer that is no chain: its parameters are `\"0.weight\"` and so on"
as_chain(chain::Chain) = chain
as_chain(layer) = Chain(layer)

"whether a layer computes something else in training: it has a field `active`"
has_mode(::L) where {L} = hasfield(L, :active)
# Its samples have statistics of their own, whatever the mode.
has_mode(l::GroupNorm) = l.track_stats

"the layer in inference mode, with the same arrays"
at_rest(layer) = has_mode(layer) ? setproperties(layer, (; active=false)) : layer

"""
    number_type(chain) -> Type

The type of the numbers that a chain computes with: that of its parameters and buffers together, whatever the samples are;
`nothing` for a chain without any, where the samples decide.
"""
function number_type(@nospecialize(chain))
    types = [eltype(value(leaf)) for of in (fields, buffers) for leaf in leaves(chain, of)]
    for T in types
        T <: Real && float(T) === T && continue
        throw(ArgumentError("the chain has parameters of type $T; allowed: real floating-point numbers, as of f64(chain)"))
    end
    return isempty(types) ? nothing : reduce(promote_type, types)
end

"refuse a layer whose samples touch each other; `path` says where it is, if that is known"
function check_inference(layer, path="")
    place = "$(isempty(path) ? "a" : "layer $path, a") $(nameof(typeof(layer)))"
    layer.active === true && throw(ArgumentError("$place is in training mode; use Flux.testmode!(chain)"))
    layer isa BatchNorm && !layer.track_stats || return nothing
    throw(ArgumentError("$place is without statistics: it has no inference mode"))
end

"refuse an array that is a parameter, or a buffer, in two places"
function check_shared(arrays)
    seen = IdDict{Any,String}()
    for leaf in arrays
        other = get!(seen, value(leaf), leaf.name)
        other == leaf.name && continue
        throw(ArgumentError("$(leaf.name) and $other are one shared array; copies would have another kernel"))
    end
end

"refuse names that are none of the chain's parameters: a kernel over them would be zero"
function check_names(chain::Chain, names)
    names isa AbstractString &&
        throw(ArgumentError("params = \"$names\"; allowed: a vector of names, as [\"$names\"]"))
    known = first.(parameters(chain))
    unknown = setdiff(names, known)
    isempty(unknown) && return names
    throw(ArgumentError("the chain has no parameters $(join(unknown, ", ")); it has $(join(known, ", "))"))
end

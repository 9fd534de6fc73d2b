"""
    inference(model) -> Chain

The chain in inference mode, with the same arrays; a layer that is not a chain is taken as a chain of one. The chain itself
keeps its mode, so a kernel computed in the middle of a training does not disturb it.

# Errors
`ArgumentError` for a chain that has no well-defined kernel: with a layer put into training mode (`Flux.trainmode!`), where
samples affect each other or outputs are random; with `rrelu`, which is always random; with a `BatchNorm` that keeps no
statistics; with arrays that share a part of their numbers; without layers; with parameters that are not real floating-point
numbers.
"""
function inference(@nospecialize(model))
    chain = as_chain(model)
    isempty(chain.layers) && throw(ArgumentError("the chain has no layers; allowed: one or more"))
    trained(chain) # refuses numbers that are shared in part
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

"a network and all that is in it, field by field, each once; Flux's own traversals would be compiled for every network"
function parts!(found::Vector{Any}, seen, @nospecialize(x))
    (x isa Union{Type,Module,Symbol,AbstractString,Number} || x in seen) && return found
    push!(seen, x)
    push!(found, x)
    if x isa Array
        isbitstype(eltype(x)) && return found
        for i in eachindex(x)
            isassigned(x, i) && parts!(found, seen, x[i])
        end
    else
        for i in 1:nfields(x)
            isdefined(x, i) && parts!(found, seen, getfield(x, i))
        end
    end
    return found
end

"a layer that is not a chain as a chain of one: its parameters are `\"0.weight\"` and so on"
as_chain(@nospecialize(chain::Chain)) = chain
as_chain(layer) = Chain(layer)

"whether a layer behaves differently in training: it has a field `active`"
has_mode(@nospecialize(layer)) = hasfield(typeof(layer), :active)
# It takes the statistics of each sample by itself, in either mode.
has_mode(l::GroupNorm) = l.track_stats

"the layer in inference mode, with the same arrays"
at_rest(layer) = has_mode(layer) ? setproperties(layer, (; active=false)) : layer

"""
    number_type(chain) -> Type

The type of the numbers that a chain computes with: that of its parameters and buffers together, whatever the samples are;
`nothing` for a chain without any, where the samples decide.
"""
function number_type(@nospecialize(chain))
    types = Type[eltype(value(leaf)) for leaf in [leaves(chain, fields); leaves(chain, buffers)]]
    for T in types
        T <: Real && float(T) === T && continue
        throw(ArgumentError("the chain has parameters of type $T; allowed: real floating-point numbers, as of f64(chain)"))
    end
    return isempty(types) ? nothing : reduce(promote_type, types)
end

"refuse a layer in which samples affect each other; `path` says where it is, if that is known"
function check_inference(layer, path="")
    name = "$(isempty(path) ? "a" : "layer $path, a") $(nameof(typeof(layer)))"
    layer.active === true && throw(ArgumentError("$name is in training mode; use Flux.testmode!(chain)"))
    layer isa BatchNorm && !layer.track_stats || return nothing
    throw(ArgumentError("$name is without statistics: it has no inference mode"))
end

"refuse numbers in two places, which a model file cannot say: one array, or its transpose, a view or a reshape of it"
function check_shared(arrays)
    seen = Dict{UInt,Vector{Leaf}}()
    for leaf in arrays, id in Base.dataids(value(leaf))
        others = get!(() -> Leaf[], seen, id)
        for other in others
            other.name == leaf.name || !Base.mightalias(value(leaf), value(other)) || throw(ArgumentError(
                "$(leaf.name) and $(other.name) are one shared array; copies would have another kernel"))
        end
        push!(others, leaf)
    end
end

"refuse names that are not parameters of the chain: a kernel over them would be zero"
function check_names(@nospecialize(chain), names)
    names isa AbstractString &&
        throw(ArgumentError("params = \"$names\"; allowed: a vector of names, as [\"$names\"]"))
    known = first.(parameters(chain))
    unknown = setdiff(names, known)
    isempty(unknown) && return names
    throw(ArgumentError("the chain has no parameters $(join(unknown, ", ")); it has $(join(known, ", "))"))
end

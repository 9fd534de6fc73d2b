# The arrays of a network: where they are, what they are called, and which of them are the same numbers.

"One array of a network: its full name, what holds it and where there, and the way to the holder's gradient."
struct Leaf
    name::String
    layer::Any # untyped: what runs over leaves is compiled once, and not for every network
    field::Any # a field, or the index in a tuple or vector
    picks::Vector{Any} # from the gradient of the whole to that of the holder, one step after the other
    within::Tuple{Any,String} # the innermost part around it that accumulates, and the prefix of names there
end

value(leaf::Leaf) = leaf.field isa Symbol && !(leaf.layer isa AbstractDict) ? getproperty(leaf.layer, leaf.field) : leaf.layer[leaf.field]
type(leaf::Leaf) = typeof(leaf.layer)

"the leaf's part of the gradient of the whole network; `nothing` if nothing depends on it"
gradient_of(leaf::Leaf, gradient) = part(foldl((g, pick) -> pick(g), leaf.picks; init=gradient), leaf.field)

part(gradient, field) = getproperty(gradient, field)
part(gradient, index::Integer) = gradient[index]
part(gradient::Base.RefValue, field::Symbol) = part(gradient[], field) # Zygote's, of a mutable layer
part(gradient::AbstractDict, field::Union{Symbol,AbstractString}) = get(gradient, field, nothing)
part(::Nothing, field) = nothing
part(::Nothing, index::Integer) = nothing

"all uses of arrays in a layer and in those inside, by `fields` or by `buffers`; an array in two layers is there twice"
function uses(@nospecialize(layer), of=fields, prefix="", picks=Any[], within=(nothing, ""))
    within = accumulates(layer) ? (layer, prefix) : within
    own = Leaf[Leaf(prefix * name, layer, field, picks, within) for (name, field) in of(layer)]
    inside = children(layer)
    isempty(own) && isempty(inside) && of === fields && return found_uses(layer, prefix, picks, within)
    for (part, child, inner) in inside
        append!(own, uses(child, of, "$prefix$part.", Any[picks; inner], within))
    end
    return of === fields && ruled_by_others(layer) ? with_forgotten(own, found_uses(layer, prefix, picks, within)) : own
end

"the same for a layer that has no rule here: what Flux trains in it, by the names of its fields"
function found_uses(@nospecialize(layer), prefix, picks, within)
    found = Leaf[]
    nfields(layer) == 0 && !(layer isa Array) && return found
    layer isa Union{Number,Symbol,AbstractString,Type,Module} && return found
    for (field, inside) in pairs(Flux.Optimisers.trainable(layer))
        name = string(field isa Integer ? field - 1 : field) # counted from 0, as in all names
        if inside isa AbstractArray{<:Number}
            eltype(inside) <: Integer || push!(found, Leaf(prefix * name, layer, field, picks, within))
        else
            append!(found, uses(inside, fields, "$prefix$name.", Any[picks; g -> part(g, field)], within))
        end
    end
    return found
end

"""
    accumulates(part)

Whether Zygote adds up the gradients of a part: over all places where a network holds it, each of which then has the whole sum,
and over the calls of one pullback.
"""
accumulates(@nospecialize(part)) = ismutable(part) && !(part isa AbstractArray)

"whether a method of somebody else says what the arrays of a layer are"
function ruled_by_others(@nospecialize(layer))
    return any(rule -> parentmodule(which(rule, Tuple{typeof(layer)})) !== @__MODULE__, (fields, children))
end

"the uses that a rule names, and behind them what Flux trains besides, by the names of fields"
function with_forgotten(own::Vector{Leaf}, trained::Vector{Leaf})
    place(leaf) = (leaf.field, ById(leaf.layer))
    named = Set(map(place, own))
    return [own; filter(leaf -> !(place(leaf) in named), trained)]
end

"the uses of arrays in a layer that have a gradient each, of which the sum counts: two of one array in two fields"
function separate_uses(@nospecialize(layer))
    return unique(uses(layer)) do leaf
        part, prefix = leaf.within
        return ById(part), chopprefix(leaf.name, prefix)
    end
end

"the arrays of a layer and of those inside, each once, by the first place that holds it"
leaves(@nospecialize(layer), of=fields) = unique(leaf -> ById(value(leaf)), uses(layer, of))

"An array as itself, whatever its numbers are."
struct ById
    array::Any
end
Base.isequal(a::ById, b::ById) = a.array === b.array
Base.hash(a::ById, h::UInt) = hash(objectid(a.array), h)

"""
    Parameter(leaf, others)

Numbers that are trained, named by the first array that holds them. Tied layers may hold them in other forms too, as `W` and
`W'`: `others` has these arrays, each with the indices in the first where its numbers stand.
"""
struct Parameter
    leaf::Leaf
    others::Vector{Pair{Any,Vector{Int}}}
end

"""
    trained(network) -> Vector{Parameter}

The parameters of a network, each once.

# Errors
`ArgumentError` for arrays that share some of their numbers, unless all numbers of the later one are in the first.
"""
function trained(@nospecialize(network))
    found, by_memory = Parameter[], Dict{UInt,Vector{Parameter}}()
    for leaf in leaves(network)
        array = value(leaf)
        ids = Base.dataids(array)
        candidates = unique(p -> p.leaf.name, reduce(vcat, (get(by_memory, id, Parameter[]) for id in ids); init=Parameter[]))
        owners = filter(p -> overlap(array, value(p.leaf)), candidates)
        if isempty(owners)
            push!(found, Parameter(leaf, Pair{Any,Vector{Int}}[]))
            foreach(id -> push!(get!(() -> Parameter[], by_memory, id), last(found)), ids)
        else
            own = only_owner(leaf, owners)
            push!(own.others, array => positions_in(own.leaf, leaf))
        end
    end
    return found
end

overlap(a, b) = Base.mightalias(a, b) && !isdisjoint(addresses(a), addresses(b))

only_owner(leaf, owners) = length(owners) == 1 ? only(owners) : refuse_overlap(leaf, first(owners).leaf)

"where the numbers of a leaf stand in the array of another"
function positions_in(whole::Leaf, leaf::Leaf)
    indices = Dict(address => index for (index, address) in enumerate(addresses(value(whole))))
    return [get(() -> refuse_overlap(leaf, whole), indices, address) for address in addresses(value(leaf))]
end

function refuse_overlap(leaf, other)
    throw(ArgumentError("$(leaf.name) and $(other.name) are one shared array in part; allowed: arrays of their own, or the same \
        numbers in another form, as W and W', the one with more of them first"))
end

"the address of every number of an array, in its order"
function addresses(array::AbstractArray)
    bytes, start = sizeof(eltype(array)), UInt(pointer(array))
    return vec([start + bytes * sum((Tuple(i) .- 1) .* strides(array); init=0) for i in CartesianIndices(array)])
end

"""
    parameters(model)

Trainable arrays of a network by name (`"0.weight"`: the index counts from 0, as in PyTorch and in `udlbridge`), in Flux's
layout, not copied. In a layer that this package has no rule for, they are what Flux trains, by the names of fields. Tied
arrays are there once, by their first name.

```jldoctest
julia> first.(UDLBridge.parameters(Chain(Dense(2 => 3), SkipConnection(Dense(3 => 3; bias=false), +))))
3-element Vector{String}:
 "0.weight"
 "0.bias"
 "1.0.weight"

julia> first.(UDLBridge.parameters(Chain(LayerNorm(3), Maxout(() -> Dense(3 => 2; bias=false), 2))))
4-element Vector{String}:
 "0.diag.scale"
 "0.diag.bias"
 "1.layers.0.weight"
 "1.layers.1.weight"
```
"""
parameters(@nospecialize(model)) = Pair{String,AbstractArray}[p.leaf.name => value(p.leaf) for p in trained(as_chain(model))]

"the arrays alone"
parameter_arrays(@nospecialize(model)) = AbstractArray[array for (_, array) in parameters(model)]

"arrays like all of a network's own, by these, from arrays in the order of [`parameters`](@ref): tied ones in each form"
function in_each_form(@nospecialize(network), values)
    forms = IdDict{Any,Any}()
    for (p, given) in zip(trained(network), values)
        forms[value(p.leaf)] = given
        for (array, positions) in p.others
            forms[array] = reshape(vec(given)[positions], size(array))
        end
    end
    return forms
end

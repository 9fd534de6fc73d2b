# Layers made of layers. A residual block is Flux's `SkipConnection`, or `Parallel` where its shortcut has layers.

function children(@nospecialize(chain::Chain))
    layers = Any[chain.layers...]
    return Any[(string(index - 1), layers[index], g -> part(part(g, :layers), index)) for index in eachindex(layers)]
end

# A connection with parameters takes several inputs, so it is no site: the block is one as a whole.
function children(s::SkipConnection)
    has_parameters(s.connection) && return Any[]
    return inside(s.layers, "", g -> part(g, :layers))
end

function children(p::Parallel)
    has_parameters(p.connection) && return Any[]
    found = Any[]
    for (index, (name, branch)) in enumerate(zip(branch_names(p), branches(p)))
        append!(found, inside(branch, name, g -> part(part(g, :layers), index)))
    end
    return found
end

branches(p::Parallel) = Any[values(p.layers)...]

"what the names of parameters in each branch begin with; two without names are the main branch of a block and its shortcut"
function branch_names(p::Parallel)
    p.layers isa Tuple || return ["$name." for name in keys(p.layers)]
    length(p.layers) == 2 && return ["", "shortcut."]
    return ["$(index - 1)." for index in eachindex(p.layers)]
end

"the children of a chain, or of a single layer, that is itself a part of a layer"
inside(@nospecialize(layer), prefix, pick) = Any[(prefix * "0", layer, pick)]
function inside(@nospecialize(chain::Chain), prefix, pick)
    return Any[(prefix * name, layer, inner ∘ pick) for (name, layer, inner) in children(chain)]
end

function observed(s::SkipConnection, x, see)
    has_parameters(s.connection) && return see(Whole(s), x)
    return s.connection(observed_inside(s.layers, x, see), x)
end

function observed(p::Parallel, x, see)
    has_parameters(p.connection) && return see(Whole(p), x)
    return p.connection(map((branch, own) -> observed_inside(branch, own, see), Tuple(p.layers), inputs_of(p, x))...)
end

function observed_pullback(s::SkipConnection, x, see::Observer)
    has_parameters(s.connection) && return pullback_as_whole(s, x, see)
    main, main_back = whole_pullback(s.layers, x, see)
    y, connection_back = connection_pullback(s.connection, main, x)
    return y, d -> added(through_branches(Any[main_back, identity], connection_back(d)))
end

function observed_pullback(p::Parallel, x, see::Observer)
    has_parameters(p.connection) && return pullback_as_whole(p, x, see)
    through = Any[whole_pullback(branch, own, see) for (branch, own) in zip(branches(p), inputs_of(p, x))]
    y, connection_back = connection_pullback(p.connection, map(first, through)...)
    backs = Any[branch_back for (_, branch_back) in through]
    return y, d -> joined(x, through_branches(backs, connection_back(d)))
end

"what goes into each branch: the same, or its own part of a tuple"
inputs_of(p::Parallel, x) = map(_ -> x, Tuple(p.layers))
function inputs_of(p::Parallel, x::Tuple)
    length(x) == length(p.layers) && return x
    throw(ArgumentError("a Parallel with $(length(p.layers)) branches got $(length(x)) inputs; allowed: as many, or one for all"))
end

pullback_as_whole(layer, x, see::Observer) = single_pullback(layer, x, see)
pullback_as_whole(layer, x, see::Recorder) = shown(see, Whole(layer), x)

by_layer(s::SkipConnection, x) = s.connection(by_layer(s.layers, x), x)
by_layer(p::Parallel, x) = p.connection(Any[by_layer(branch, own) for (branch, own) in zip(branches(p), inputs_of(p, x))]...)

"branches joined, and the pullback to all of them"
connection_pullback(connection, ys...) = Zygote.pullback(connection, ys...)
connection_pullback(::typeof(+), a::AbstractArray, b::AbstractArray) = a + b, d -> (d, d)

"the derivatives that come back by branches, each of which may be `nothing`"
through_branches(backs::Vector{Any}, derivatives) = Any[pulled(d, branch_back) for (branch_back, d) in zip(backs, derivatives)]

added(found::Vector{Any}) = reduce((a, b) -> a === nothing ? b : b === nothing ? a : a .+ b, found)

"what they are to the input: their sum where it goes into all branches, or one for each part of a tuple"
joined(x, found::Vector{Any}) = added(found)
joined(x::Tuple, found::Vector{Any}) = Tuple(found)

function build_layer(::Val{:residual}, settings, param)
    main = build_chain(settings["layers"], param)
    isempty(settings["shortcut"]) && return SkipConnection(main, +)
    return Parallel(+, main, build_chain(settings["shortcut"], name -> param("shortcut.$name")))
end

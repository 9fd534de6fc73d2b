# The structured kernel of a graph: one pass of the batch forward, and one back for each cotangent, to the values of the nodes that
# parameters enter. Linear maps and convolutions multiply Gram matrices of inputs and errors, as in chains; what else has parameters
# gives per-sample gradients by its own pullback, one for each sample; they add up over the uses of a parameter. The rest, what goes
# to other values first or into an axis with more than the samples, takes pullbacks of the whole graph.

"""
    carries(graph, X) -> Vector{Symbol}

For every value whether it has the samples along its last axis and nowhere else, `:samples`; does not depend on their number,
`:none`; or has them in another way, `:folded`. It is seen by the sizes for one sample and for two.
"""
function carries(g::Graph, X::AbstractArray)
    one, two = (map(size, evaluate(g, zero_based(g, X[axes(X)[1:(end - 1)]..., ones(Int, k)]))) for k in 1:2)
    return map(one, two) do a, b
        a == b && return :none
        return a[1:(end - 1)] == b[1:(end - 1)] && last(a) == 1 && last(b) == 2 ? :samples : :folded
    end
end

"a linear map or a convolution in a graph: its node, its layer for `Affine`, and which of its two parameters count, by name"
struct AffineNode
    node::Int
    layer::Any
    wanted::Vector{Bool}
    names::Vector{String}
end

"a parameter that enters by nodes with the samples along the last axis: (node, position among its inputs) for every use"
struct LocalParameter
    name::String
    uses::Vector{Tuple{Int,Int}}
end

"how the parameters of a kernel enter a graph; `kinds` are those of [`carries`](@ref), `rest` the names of what has no rule"
struct Entrances
    kinds::Vector{Symbol}
    affine::Vector{AffineNode}
    locals::Vector{LocalParameter}
    rest::Vector{String}
end

function Entrances(g::Graph, X::AbstractArray, names)
    kinds = carries(g, X)
    uses = Dict(name => Tuple{Int,Int}[] for name in names)
    named = Dict(g.places[name] => name for name in names)
    for (k, node) in enumerate(g.nodes), (position, input) in enumerate(node.inputs)
        haskey(named, input) && push!(uses[named[input]], (k, position))
    end
    apart(k) = kinds[given_values(g) + k] === :samples && all(in((:samples, :none)), kinds[g.nodes[k].inputs])
    own = filter(name -> all(apart ∘ first, uses[name]), names)
    once(place) = haskey(named, place) && named[place] in own && length(uses[named[place]]) == 1
    affine = AffineNode[]
    for (k, node) in enumerate(g.nodes)
        node.kind isa Union{Val{:linear},Val{:conv}} && apart(k) && kinds[first(node.inputs)] === :samples || continue
        wanted = map(once, node.inputs[2:end])
        # A bias alone is a local parameter.
        first(wanted) || continue
        push!(affine, AffineNode(k, affine_layer(node, g, node.inputs[2]), wanted, [named[p] for p in node.inputs[2:end][wanted]]))
    end
    taken = reduce(vcat, (site.names for site in affine); init=String[])
    locals = [LocalParameter(name, uses[name]) for name in own if !(name in taken)]
    return Entrances(kinds, affine, locals, filter(!in(own), names))
end

"(in, ...) -> (out, ...), at every position"
struct LastAxisMap end
inputs(::LastAxisMap, x) = reshape(x, size(x, 1), :, 1, size(x, ndims(x)))
errors(::LastAxisMap, d) = reshape(d, size(d, 1), :, 1, size(d, ndims(d)))

affine_layer(node::Node, g::Graph, weight::Int) = affine_layer(node.kind, node.attributes, g.params[g.names[weight - 1]])
affine_layer(::Val{:linear}, a, weight) = LastAxisMap()
# The order of the entries of a window, which a flipped kernel changes, does not matter to inner products.
function affine_layer(::Val{:conv}, a, weight)
    ends = Tuple(count for pair in both_ends(a.padding) for count in pair)
    return Conv(identity, weight, false, reverse(a.stride), ends, reverse(a.dilation), a.groups)
end

"a summand that is being filled"
struct Filling
    names::Vector{String}
    factor::Union{Factor,Positions}
end

function structured_factors(g::Graph{T}, X::AbstractArray, r::Reduction, names) where {T}
    names, n = filter(in(names), g.names), size(X, ndims(X))
    entrances = Entrances(g, X, names)
    (; affine, locals, rest) = entrances
    trial = evaluate(g, zero_based(g, sample(X, 1)))
    y = flat_output(g, trial)
    K, O = length(cotangents(r, y)), size(y, 1)
    extent = Extent{T}(K, n, products(r, O)...)
    sites = map(affine) do site
        node, value = g.nodes[site.node], trial[given_values(g) + site.node]
        count = sum(length(g.params[name]) for name in site.names)
        Filling(site.names, blank(Affine(site.layer), site.wanted, count, trial[first(node.inputs)], size(value), extent))
    end
    own = [Filling([p.name], blank_gradients(length(g.params[p.name]), extent)) for p in locals]
    numbers = sum(length, trial)
    for part in Iterators.partition(1:n, max(1, STRETCH_NUMBERS ÷ (numbers * (K + 8))))
        fill_graph_stretch!(sites, own, g, entrances, copy(selectdim(X, ndims(X), part)), r, part)
    end
    found = [Summand(s.names, s.factor) for s in [sites; own]]
    isempty(rest) && return found
    blocks = per_sample(g, X, cotangents(r, similar(y, O, n)), rest)
    return [found; [Summand([name], Factor(nothing, reshape(block, :, K, n))) for (name, block) in blocks]]
end

"fill the factors for the samples `X`, whose numbers are `part`"
function fill_graph_stretch!(sites, own, g::Graph, entrances::Entrances, X, r::Reduction, part)
    (; affine, locals, kinds) = entrances
    at = sort!(unique!([[site.node for site in affine]; [k for p in locals for (k, _) in p.uses]]))
    tape = Tape(g, zero_based(g, X), given_values(g) .+ at)
    entered = map(affine, sites) do site, filling
        write_input!(filling.factor, Affine(site.layer), tape.values[first(g.nodes[site.node].inputs)], part)
    end
    local_nodes = sort!(unique!([k for p in locals for (k, _) in p.uses]))
    backs = Dict(k => [alone(g, kinds, tape.values, k, i) for i in eachindex(part)] for k in local_nodes)
    for (k, seed) in enumerate(cotangents(r, flat_output(g, tape.values)))
        errors_at = Dict(node => whole(d, tape.values[given_values(g) + node]) for (node, d) in zip(at, pull_back(tape, seed)))
        for (site, filling, input) in zip(affine, sites, entered)
            write_error!(filling.factor, Affine(site.layer), site.wanted, input, errors_at[site.node], k, part)
        end
        foreach(filling -> fill!(view(filling.factor.d, :, k, part), 0), own)
        for node in local_nodes, (i, j) in enumerate(part)
            pulled = backs[node][i](sample(errors_at[node], i))
            for (p, filling) in zip(locals, own), (used, position) in p.uses
                used == node && pulled[position] !== nothing && (view(filling.factor.d, :, k, j) .+= vec(pulled[position]))
            end
        end
    end
end

"an error as an array; zeros where the outputs do not depend on the value"
whole(d::Array, value) = d
whole(d::AbstractArray, value) = Array(d)
whole(::Nothing, value) = zero(value)

"the pullback of one node for one sample of the batch"
function alone(g::Graph{T}, kinds, values, k::Integer, i::Integer) where {T}
    node = g.nodes[k]
    own = map(place -> kinds[place] === :samples ? sample(values[place], i) : values[place], node.inputs)
    return last(node_pullback(node.kind, Batch{T}(1), node.attributes, own...))
end

# The structured kernel of a graph: one pass of the batch forward, and one back for each cotangent, to the values of the nodes that
# parameters enter. Linear maps and convolutions multiply Gram matrices of inputs and errors, as in chains; what else has parameters
# gives gradients of every sample by itself, which add up over the uses of a parameter. The rest, what goes to other values first or
# into an axis with more than the samples, takes pullbacks of the whole graph.

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

"how the parameters of a kernel enter a graph, with its values for one sample; `rest` has the names of what has no rule"
struct Entrances
    trial::Vector{Any}
    places::Vector{Place}
    affine::Vector{AffineNode}
    locals::Vector{LocalParameter}
    rest::Vector{String}
end

function Entrances(g::Graph, X::AbstractArray, names)
    one, two = (evaluate(g, zero_based(g, X[axes(X)[1:(end - 1)]..., ones(Int, k)])) for k in 1:2)
    places = places_of_samples(g, one, two)
    uses = Dict(name => Tuple{Int,Int}[] for name in names)
    named = Dict(g.places[name] => name for name in names)
    for (k, node) in enumerate(g.nodes), (position, input) in enumerate(node.inputs)
        haskey(named, input) && push!(uses[named[input]], (k, position))
    end
    last_axis(k) = at_end(places[k], size(one[k]))
    apart(k) = last_axis(given_values(g) + k) && all(input -> places[input] == NOWHERE || last_axis(input), g.nodes[k].inputs)
    once(place) = haskey(named, place) && length(uses[named[place]]) == 1
    affine = AffineNode[]
    for (k, node) in enumerate(g.nodes)
        is_site(node.kind, apart(k), places[[node.inputs; given_values(g) + k]]) || continue
        wanted = map(once, node.inputs[2:end])
        # A bias alone is a local parameter.
        first(wanted) || continue
        push!(affine, AffineNode(k, affine_layer(node, g, node.inputs[2]), wanted, [named[p] for p in node.inputs[2:end][wanted]]))
    end
    taken = reduce(vcat, (site.names for site in affine); init=String[])
    by_node(name) = all(apart ∘ first, uses[name])
    locals = [LocalParameter(name, uses[name]) for name in names if !(name in taken) && by_node(name)]
    return Entrances(one, places, affine, locals, filter(name -> !(name in taken) && !by_node(name), names))
end

"""
Whether a node is a site of `Affine`, from the places of its inputs and of its value; `apart` says that samples are along the last
axis of each of these that has them.
"""
is_site(::Val, apart::Bool, places) = false
is_site(::Val{:conv}, apart::Bool, places) = apart && first(places) != NOWHERE
is_site(::Val{:linear}, apart::Bool, places) = first(places).axis > 1 && first(places) == last(places)

"(in, ...) -> (out, ...), at every position"
struct LastAxisMap end
inputs(::LastAxisMap, x) = reshape(x, size(x, 1), :, 1, size(x, ndims(x)))
errors(::LastAxisMap, d) = reshape(d, size(d, 1), :, 1, size(d, ndims(d)))

affine_layer(node::Node, g::Graph, weight::Int) = affine_layer(node.kind, node.attributes, g.params[g.names[weight - length(g.inputs)]])
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

function structured_factors(g::Graph{T}, X::AbstractArray, r::Reduction, names; step::Union{Integer,Nothing}=nothing) where {T}
    names, n = filter(in(names), g.names), size(X, ndims(X))
    entrances = Entrances(g, X, names)
    (; trial, affine, locals, rest) = entrances
    y = flat_output(g, trial)
    K, O = length(cotangents(r, y)), size(y, 1)
    extent = Extent{T}(K, n, products(r, O)...)
    sites = map(affine) do site
        count = sum(length(g.params[name]) for name in site.names)
        input, output = (at_place(g, entrances, k, trial, 1) for k in (first(g.nodes[site.node].inputs), given_values(g) + site.node))
        Filling(site.names, blank(Affine(site.layer), site.wanted, count, input, size(output), extent))
    end
    own = [Filling([p.name], blank_gradients(length(g.params[p.name]), extent)) for p in locals]
    # A backward pass makes about as many numbers as there are in all values, the forward pass twice as many, with the slopes.
    numbers = sum(length, trial[(given_values(g) + 1):end])
    for part in Iterators.partition(1:n, something(step, max(1, STRETCH_NUMBERS ÷ (numbers * (K + 2)))))
        fill_graph_stretch!(sites, own, g, entrances, copy(selectdim(X, ndims(X), part)), r, part)
    end
    found = [Summand(s.names, s.factor) for s in [sites; own]]
    isempty(rest) && return found
    blocks = per_sample(g, X, cotangents(r, similar(y, O, n)), rest)
    return [found; [Summand([name], Factor(nothing, reshape(block, :, K, n))) for (name, block) in blocks]]
end

"the value of a batch at a place of the graph, or an array like it, with its samples along the last axis"
function at_place(g::Graph, entrances::Entrances, k::Integer, values, n::Integer)
    return turned(values[k], entrances.places[k], size(entrances.trial[k]), n)
end

function turned(x::Array, place::Place, one::Dims, n::Integer)
    at_end(place, one) && return x
    return reshape(samples_last(x, run_before(place, one), n), size(x, 1), :, n)
end

"fill the factors for the samples `X`, whose numbers are `part`"
function fill_graph_stretch!(sites, own, g::Graph{T}, entrances::Entrances, X, r::Reduction, part) where {T}
    (; trial, places, affine, locals) = entrances
    local_nodes = sort!(unique!([k for p in locals for (k, _) in p.uses]))
    at = sort!(unique!([[site.node for site in affine]; local_nodes]))
    tape = Tape(g, zero_based(g, X), given_values(g) .+ at)
    entered = map(affine, sites) do site, filling
        input = at_place(g, entrances, first(g.nodes[site.node].inputs), tape.values, length(part))
        write_input!(filling.factor, Affine(site.layer), input, part)
    end
    backs = Dict(map(local_nodes) do k
        node, batch = g.nodes[k], Batch{T}(length(part))
        k => samples_pullback(node.kind, batch, node.attributes, map(input -> places[input] != NOWHERE, node.inputs), tape.values[node.inputs]...)
    end)
    errors_of = [Array{T}[] for _ in affine]
    for (k, seed) in enumerate(cotangents(r, flat_output(g, tape.values)))
        errors_at = Dict(node => whole(d, tape.values[given_values(g) + node]) for (node, d) in zip(at, pull_back(tape, seed)))
        for (errors, site) in zip(errors_of, affine)
            place = given_values(g) + site.node
            push!(errors, turned(errors_at[site.node], places[place], size(trial[place]), length(part)))
        end
        foreach(filling -> fill!(view(filling.factor.d, :, k, part), 0), own)
        for node in local_nodes
            pulled = backs[node](errors_at[node])
            for (p, filling) in zip(locals, own), (used, position) in p.uses
                used == node || continue
                found = unthunk(pulled[position])
                found === nothing || (view(filling.factor.d, :, k, part) .+= found)
            end
        end
    end
    for (site, filling, input, errors) in zip(affine, sites, entered, errors_of)
        write_errors!(filling.factor, Affine(site.layer), site.wanted, input, errors, part)
    end
end

"an error as an array; zeros where the outputs do not depend on the value"
whole(d::Array, value) = d
whole(d::AbstractArray, value) = Array(d)
whole(::Nothing, value) = zero(value)

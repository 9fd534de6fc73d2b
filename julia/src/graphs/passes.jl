# A graph forward and backward, node after node. What comes back to a value from all of its uses adds up.
# Source: Griewank and Walther, Evaluating Derivatives (2008), chapter 3.

"all values of a graph before its first node: samples, parameters, buffers, in the order of `places`"
function first_values(g::Graph, x)
    values = Vector{Any}(undef, given_values(g) + length(g.nodes))
    values[eachindex(g.inputs)] .= entering(x)
    foreach(((name, array),) -> values[g.places[name]] = array, g.params)
    foreach(((name, array),) -> values[g.places[name]] = array, g.buffers)
    return values
end

"samples as values: of several inputs, one for each"
entering(x::AbstractArray) = Any[x]
entering(x::Several) = Any[x.arrays...]

"the number of the value that the first node gives, less 1"
given_values(g::Graph) = length(g.inputs) + length(g.params) + length(g.buffers)

"""
    evaluate(graph, x) -> Vector

Every value of the graph for a batch `x`, whose tokens count from 0 as in the source.
"""
function evaluate(g::Graph{T}, x::AbstractArray) where {T}
    values, batch = first_values(g, x), Batch{T}(size(x, ndims(x)))
    for (k, node) in enumerate(g.nodes)
        checkpoint()
        values[given_values(g) + k] = operation(node.kind, batch, node.attributes, values[node.inputs]...)
    end
    return values
end

"""
    Tape(graph, x, wanted)

A batch that went forward through a graph: its values, the pullbacks of the nodes that depend on values whose places are `wanted`,
and which values do.
"""
struct Tape
    graph::Graph
    values::Vector{Any}
    backs::Vector{Any}
    moving::BitVector
    wanted::Vector{Int}
end

function Tape(g::Graph{T}, x::AbstractArray, wanted::Vector{Int}) where {T}
    values, batch = first_values(g, x), Batch{T}(size(x, ndims(x)))
    backs = Vector{Any}(nothing, length(g.nodes))
    moving = falses(length(values))
    moving[wanted] .= true
    for (k, node) in enumerate(g.nodes)
        checkpoint()
        place, inputs = given_values(g) + k, values[node.inputs]
        if any(view(moving, node.inputs))
            values[place], backs[k] = node_pullback(node.kind, batch, node.attributes, inputs...)
            moving[place] = is_smooth(eltype(values[place]))
        else
            values[place] = operation(node.kind, batch, node.attributes, inputs...)
        end
    end
    return Tape(g, values, backs, moving, wanted)
end

"f(X) as a matrix (O, n)"
flat_output(g::Graph, values) = flat_samples(values[g.output])

flat_samples(y::AbstractArray) = reshape(y, :, size(y, ndims(y)))

"""
    pull_back(tape, d) -> Vector

The cotangents of the values that are wanted, in their order, from one of f(X), in any shape; `nothing` where f does not depend on
one.
"""
function pull_back(tape::Tape, d::AbstractArray)
    g = tape.graph
    found = Vector{Any}(nothing, length(tape.values))
    tape.moving[g.output] && (found[g.output] = reshape(d, size(tape.values[g.output])))
    for k in reverse(eachindex(g.nodes))
        place = given_values(g) + k
        (found[place] === nothing || tape.backs[k] === nothing) && continue
        checkpoint()
        for (input, part) in zip(g.nodes[k].inputs, tape.backs[k](found[place]))
            (part === nothing || !tape.moving[input]) && continue
            part = unthunk(part)
            found[input] = found[input] === nothing ? part : found[input] .+ part
        end
        place in tape.wanted || (found[place] = nothing) # for the garbage collector
    end
    return found[tape.wanted]
end

"""
    AtStart(loss, start)

The loss of a linearised network, `f(x) + J(x) (theta - theta_0)`: only the parameters theta of the chain, or graph,
that is trained count, while f and J are those of `start`, with the parameters theta_0.
"""
struct AtStart{L}
    loss::L
    start::Union{Chain,Graph}
end

"the parameters of a chain, or graph, minus those of another, of no axes too, in the order of [`parameters`](@ref)"
function moves(@nospecialize(chain), @nospecialize(start))
    return [now - before for ((_, now), (_, before)) in zip(parameters(chain), parameters(start))]
end

"""
    linear_outputs(start, X, direction) -> Matrix

`f(x) + J(x) w` (O, n): the outputs of a chain or graph, linearised, where its parameters move along `direction`, arrays in the order
of [`parameters`](@ref).
"""
function linear_outputs(@nospecialize(start), X::AbstractArray, direction::AbstractVector)
    f = outputs(start, X)
    moved = map(axes(f, 1)) do a
        C = fill!(similar(f), 0)
        C[a, :] .= 1
        push(start, X, direction, C)'
    end
    return f .+ reduce(vcat, moved)
end

"the loss and its gradient J' dL/df: two products with the Jacobian at the start"
value_and_gradient(l::AtStart, @nospecialize(chain::Chain), x::AbstractArray, y; keep...) = at_start(l, chain, x, y)
value_and_gradient(l::AtStart, g::Graph, x::AbstractArray, y; keep...) = at_start(l, g, x, y)

function at_start(l::AtStart, @nospecialize(network), x::AbstractArray, y)
    f = linear_outputs(l.start, x, moves(network, l.start))
    value, (slope,) = Flux.withgradient(f -> l.loss(f, y), f)
    return value, last.(pull(l.start, x, slope))
end

"""
    bridge_linearized(chain, start, X, Y, loss, optimiser, names, values, rates, clip_norm)

A [`Training`](@ref) of `chain`, which may be a graph, in place, as by [`bridge_training`](@ref), but of the network linearised at `start`.
"""
function bridge_linearized(@nospecialize(chain), @nospecialize(start), X, Y, loss, name, names, values, rates, clip_norm)
    settings = Dict{String,Float64}(String(key) => value for (key, value) in zip(names, values))
    rule = optimiser(Symbol(name), settings)
    limit = iszero(clip_norm) ? nothing : Float64(clip_norm)
    known = AtStart(loss_function(String(loss)), first(ready(start, received(start, X))))
    return Training(chain, received(chain, X), targets(Y), known; optimiser=rule, rates, clip_norm=limit)
end

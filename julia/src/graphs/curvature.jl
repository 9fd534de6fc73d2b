# Second derivatives of a graph by its samples: they move along a direction, and dual numbers (ForwardDiff) carry the derivative along
# it through the pass forward and the pass back.

"the second derivative of a function of one number; 0 at a kink"
second_derivative(f, x::Real) = carried_along(derivative(f, Along(x, one(x))))
second_derivative(::Union{Between,Bent,typeof(hard_sigmoid)}, x::Real) = zero(x)
second_derivative(::typeof(hard_swish), x::Real) = -3 < x < 3 ? inv(oftype(x, 3)) : zero(x)
function second_derivative(f::Power, x::Real)
    p = f.exponent
    return p == 0 || p == 1 ? zero(x) : oftype(x, p * (p - 1)) * Power(p - 2)(x)
end

"the value and the slope of a function for every entry, which both move"
function curved(f, x::DualArray)
    v, moves = at_value(x), moves_of(x)
    slopes = each_entry(v -> derivative(f, v), v)
    return Along.(each_entry(f, v), slopes .* moves), Along.(slopes, each_entry(v -> second_derivative(f, v), v) .* moves)
end

operation(kind::Scalar, ::Batch, a, x::DualArray) = first(curved(scalar(kind, a), x))

function node_pullback(kind::Scalar, ::Batch, a, x::DualArray)
    y, slopes = curved(scalar(kind, a), x)
    return y, d -> (d .* slopes,)
end

operation(::Val{:stop_gradient}, ::Batch, a, x::DualArray) = at_value(x)

"the tape of a batch that moves along `direction`"
moving_tape(g::Graph, X, direction, wanted) = Tape(g, Along.(X, direction), wanted)

function input_hessian(g::Graph{T}, X::AbstractArray) where {T}
    g, X = ready(g, X)
    takes_tokens(g) && throw(ArgumentError("the graph takes tokens, or several inputs, which have no second derivatives"))
    n = size(X, ndims(X))
    seeds = cotangents(Full(), check_outputs(g, X, n))
    D = length(X) ÷ n
    H = zeros(T, D, D, length(seeds), n)
    for d in 1:D
        direction = reshape(zeros(T, D, n), size(X))
        reshape(direction, D, n)[d, :] .= 1
        tape = moving_tape(g, X, direction, [1])
        for (k, seed) in enumerate(seeds)
            found = only(pull_back(tape, seed))
            found === nothing || (H[:, d, k, :] = carried_along.(reshape(found, D, n)))
        end
    end
    return H
end

function slope_gradient(g::Graph, X::AbstractArray, C::AbstractArray)
    g, X = ready(g, X)
    total = [zero(g.params[name]) for name in g.names]
    wanted = [g.places[name] for name in g.names]
    for (k, seed) in enumerate(cotangents(Full(), check_outputs(g, X, size(X, ndims(X)))))
        tape = moving_tape(g, X, selectdim(C, ndims(C) - 1, k), wanted)
        for (sum, found) in zip(total, pull_back(tape, seed))
            found === nothing || (sum .+= carried_along.(found))
        end
    end
    return total
end

value_and_gradient(loss::Sobolev, g::Graph, x::AbstractArray, y::Observed; keep...) = of_slopes(loss, g, x, y; keep...)

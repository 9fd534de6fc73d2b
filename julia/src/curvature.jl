"""
    input_hessian(model, X)

Second derivatives of every output with respect to the sample that it comes from, `(D, D, O, n)` with `D` the number of
entries of a sample.

Forward mode over reverse mode: the Zygote pullback of each output is differentiated once more, along each entry of the
sample, with a dual number (ForwardDiff). The samples of a batch do not affect each other, so one direction serves all. Where
an activation has no second derivative (`abs`, `relu`, `leakyrelu`, `elu` and `selu` at 0) it is 0.

```jldoctest
julia> input_hessian(Dense(ones(1, 2), [0.0], z -> z^3), [1.0, 0.0][:, :])[:, :, 1, 1]
2×2 Matrix{Float64}:
 6.0  6.0
 6.0  6.0
```

# Errors
`ArgumentError` for a chain that takes tokens, and as for [`UDLBridge.jacobian`](@ref).
"""
input_hessian(model, X::AbstractArray) = second_derivatives(model, X)::result(model, Val(4))

"the [`input_hessian`](@ref), behind a function barrier"
function second_derivatives(@nospecialize(model), @nospecialize(X))
    chain, X = ready(model, X)
    check_outputs(chain, X)
    eltype(X) <: Integer && throw(ArgumentError("the chain takes tokens, which have no second derivatives"))
    y, chain = by_layer(chain, X), for_duals(chain)
    same_values(by_layer(chain, X), y) || throw(ArgumentError("this package makes other outputs of X than the model itself, by a \
        rule for one of its layers: there are no second derivatives of it"))
    seeds = cotangents(Full(), y)
    T = eltype(first(seeds))
    n = size(X, ndims(X))
    D = length(X) ÷ n
    H = Array{T}(undef, D, D, length(seeds), n)
    for d in 1:D
        direction = reshape(zeros(T, D, n), size(X))
        reshape(direction, D, n)[d, :] .= 1
        for (k, seed) in enumerate(seeds)
            H[:, d, k, :] = carried_along.(input_gradient(chain, Along.(X, direction), seed))
        end
    end
    return H
end

"the pullback of `seed` through the chain to its input, (D, n); zeros where the outputs do not depend on it"
function input_gradient(@nospecialize(chain::Chain), X::AbstractArray, seed)
    pulled = last(observed_pullback(chain, X, Inputs()))(seed)
    return reshape(pulled === nothing ? zero(X) : pulled, :, size(X, ndims(X)))
end

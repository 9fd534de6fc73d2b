"""
    slope_gradient(chain, X, C) -> Vector of arrays

The gradient by every parameter, in the order of [`parameters`](@ref), of `sum(C .* input_jacobian(chain, X))`, for `C`
(D..., O, n).

Forward over reverse: all samples move along their own direction at once, and a dual number (ForwardDiff) differentiates
the Zygote gradient along the way; one pass for each output.
"""
function slope_gradient(chain::Chain, X::AbstractArray{T}, C::AbstractArray) where {T}
    chain = without_dropout(Flux.testmode!(chain))
    total = zeros(T, sum(length, last.(parameters(chain)); init=0))
    for (k, seed) in enumerate(cotangents(Full(), chain(X)))
        direction = selectdim(C, ndims(C) - 1, k)
        total .+= ForwardDiff.derivative(t -> flat_gradient(chain, X .+ t .* direction, seed), zero(T))
    end
    result, first = Array{T}[], 1
    for (_, p) in parameters(chain)
        push!(result, reshape(total[first:(first + length(p) - 1)], size(p)))
        first += length(p)
    end
    return result
end

"the gradient of `sum(seed .* chain(X))` by all parameters, in one vector"
function flat_gradient(chain::Chain, X::AbstractArray, seed)
    gradient = only(last(Zygote.pullback(m -> m(X), chain))(seed))
    return reduce(vcat, map(leaves(chain)) do leaf
        found = gradient_of(leaf, gradient)
        vec(found === nothing ? zeros(eltype(X), size(value(leaf))) : found)
    end)
end

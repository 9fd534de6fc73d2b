"""
    slope_gradient(chain, X, C) -> Vector of arrays

The gradient, with respect to every parameter in the order of [`parameters`](@ref), of `sum(C .* input_jacobian(chain, X))`,
for `C` (D..., O, n).

Forward over reverse: all samples move along their own direction at once, and a dual number (ForwardDiff) differentiates
the Zygote gradient along the way; one pass for each output. Second derivatives at kinks are 0, as for
[`input_hessian`](@ref).
"""
function slope_gradient(model, X::AbstractArray, C::AbstractArray)
    chain, X = ready(model, X)
    chain, T = for_duals(chain), eltype(X)
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

"""
    Sobolev(weight)

The loss of a network's values and of its slopes: the mean over samples of
`sum(abs2, f - y) + weight * sum(abs2, df/dx - s)`, over what was observed. Its targets are [`Observed`](@ref).
"""
struct Sobolev
    weight::Float64
end

"""
    Observed(values, slopes)

Targets of [`Sobolev`](@ref): values (O, n) and derivatives with respect to the input (D..., O, n), `NaN` where
nothing was observed.
"""
struct Observed{A<:AbstractMatrix,B<:AbstractArray}
    values::A
    slopes::B
end

count_samples(Y::Observed) = count_samples(Y.values)
gather(Y::Observed, batch) = Observed(gather(Y.values, batch), gather(Y.slopes, batch))

# Derivatives with respect to the input are backward passes themselves; those with respect to parameters go through them by
# dual numbers, since Zygote cannot differentiate itself.
function value_and_gradient(loss::Sobolev, chain::Chain, x::AbstractArray{T}, y::Observed) where {T}
    n, weight = size(x, ndims(x)), T(loss.weight)
    value, (tree,) = Flux.withgradient(m -> sum(abs2, gaps(m(x), y.values)) / n, chain)
    gap = gaps(input_jacobian(chain, x), y.slopes)
    by_slope = slope_gradient(chain, x, (2 * weight / n) .* gap)
    return value + weight * sum(abs2, gap) / n, map(+, gradient_arrays(chain, tree), by_slope)
end

"found - wanted, and 0 where the wanted number is NaN"
gaps(found, wanted) = gap.(found, wanted)
gap(found, wanted) = isnan(wanted) ? zero(found) : found - wanted

"""
    slope_gradient(chain, X, C) -> Vector of arrays

The gradient, with respect to every parameter in the order of [`parameters`](@ref), of `sum(C .* input_jacobian(chain, X))`,
for `C` (D..., O, n).

Forward over reverse: all samples move along their own direction at once, and a dual number (ForwardDiff) differentiates
the Zygote gradient along the way; one pass for each output. Second derivatives at kinks are 0, as for
[`input_hessian`](@ref).
"""
function slope_gradient(@nospecialize(model), X::AbstractArray, C::AbstractArray)
    chain, X = ready(model, X)
    chain = for_duals(chain)
    own = trained(chain)
    total = [zero(value(p.leaf)) for p in own]
    for (k, seed) in enumerate(cotangents(Full(), by_layer(chain, X)))
        see = Gradients()
        _, chain_back = observed_pullback(chain, Along.(X, selectdim(C, ndims(C) - 1, k)), see)
        for (sum, found) in zip(total, gradients!(see, chain_back, seed, own))
            found === nothing || (sum .+= carried_along.(found))
        end
    end
    return total
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
function value_and_gradient(loss::Sobolev, @nospecialize(chain::Chain), x::AbstractArray, y::Observed; keep...)
    return of_slopes(loss, chain, x, y; keep...)
end

"the loss of a chain or a graph in inference mode, and its gradients"
function of_slopes(loss::Sobolev, @nospecialize(chain), x::AbstractArray{T}, y::Observed; keep...) where {T}
    n, weight = size(x, ndims(x)), T(loss.weight)
    value, by_value = value_and_gradient((f, y) -> sum(abs2, gaps(f, y)) / n, chain, x, y.values; keep...)
    gap = gaps(input_jacobian(chain, x), y.slopes)
    by_slope = slope_gradient(chain, x, (2 * weight / n) .* gap)
    return value + weight * sum(abs2, gap) / n, map(+, by_value, by_slope)
end

"found - wanted, and 0 where the wanted number is NaN"
gaps(found, wanted) = gap.(found, wanted)
gap(found, wanted) = isnan(wanted) ? zero(found) : found - wanted

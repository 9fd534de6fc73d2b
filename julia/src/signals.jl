"""
    signals(model, X, Y) -> activations, errors

Per layer, its output, and the gradient of the sum of squares `sum((f(X) - Y).^2)` with respect to its preactivation (a
Dense layer) or its output (any other layer). Samples last.

The chain is walked one layer at a time, each with its own Zygote pullback, so that fifty equal layers compile once.

# Errors
`ArgumentError` where there is no sample, and for what [`inference`](@ref) refuses.
"""
function signals(@nospecialize(model), X::AbstractArray, Y::AbstractArray)
    chain, X = ready(model, X)
    activations, pullbacks = Any[], Any[]
    h = X
    for layer in Any[chain.layers...]
        h, error_of, back = step_with_pullback(layer, h)
        push!(activations, h)
        push!(pullbacks, (error_of, back))
    end
    slope = 2 .* (h .- Y)
    errors = Any[]
    for (error_of, back) in reverse(pullbacks)
        error = error_of(slope)
        pushfirst!(errors, error)
        slope = back(error)
    end
    return activations, errors
end

"the layer's output, the pullback from it to the preactivation, and the pullback from there to the input"
function step_with_pullback(layer, x)
    y, back = observed_pullback(layer, x, Inputs())
    return y, identity, back
end
function step_with_pullback(layer::Dense, x)
    z, affine_back = Zygote.pullback(x) do a
        reshape(layer.weight * reshape(a, size(a, 1), :) .+ layer.bias, :, Base.tail(size(a))...)
    end
    y, activation_back = Zygote.pullback(a -> layer.σ.(a), z)
    return y, slope -> only(activation_back(slope)), slope -> only(affine_back(slope))
end

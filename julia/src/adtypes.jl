# Which package differentiates by the parameters, where somebody says so: `adtype`, in the words of ADTypes.

"""
    jacobian_by(adtype, f, θ)

The Jacobian (K, P) of a function from a vector of P parameters to one of K numbers. There are methods for `AutoForwardDiff`, and
for what DifferentiationInterface knows where that is loaded; `AutoZygote` takes the pullbacks of [`per_sample`](@ref) instead.

# Errors
`ArgumentError` for anything else, naming what to load.
"""
function jacobian_by(adtype, f, θ)
    adtype isa AbstractADType || throw(ArgumentError("adtype = $(repr(adtype)); allowed: nothing, AutoZygote(), AutoForwardDiff(), or \
        another of ADTypes with DifferentiationInterface"))
    package = chopprefix(string(nameof(typeof(adtype))), "Auto")
    throw(ArgumentError("adtype = $(repr(adtype)); allowed: AutoZygote(), AutoForwardDiff(); for others, load the package first, \
        and DifferentiationInterface: using $package, DifferentiationInterface"))
end
jacobian_by(::AutoForwardDiff{nothing}, f, θ) = ForwardDiff.jacobian(f, θ)
function jacobian_by(::AutoForwardDiff{C}, f, θ) where {C}
    return ForwardDiff.jacobian(f, θ, ForwardDiff.JacobianConfig(f, θ, ForwardDiff.Chunk{min(C, length(θ))}()))
end

"blocks (size(parameter)..., K, n) for the K cotangents of the batch, as by [`per_sample`](@ref), from the Jacobians of `adtype`"
per_sample_by(::Union{Nothing,AutoZygote}, @nospecialize(chain::Chain), X::AbstractArray, seeds) = per_sample(chain, X, seeds)
function per_sample_by(adtype, @nospecialize(chain::Chain), X::AbstractArray, seeds)
    own, T, n, K = trained(chain), eltype(first(seeds)), size(X, ndims(X)), length(seeds)
    θ = reduce(vcat, [vec(value(p.leaf)) for p in own]; init=T[])
    J = Array{T}(undef, length(θ), K, n)
    for i in 1:n
        x, C = sample(X, i), reduce(hcat, [seed[:, i] for seed in seeds])
        J[:, :, i] = permutedims(jacobian_by(adtype, θ -> transpose(C) * vec(by_layer(with_numbers(chain, own, θ), x)), θ))
    end
    stops = cumsum([length(value(p.leaf)) for p in own])
    return map(own, stops) do p, stop
        array = value(p.leaf)
        p.leaf.name => reshape(J[(stop - length(array) + 1):stop, :, :], size(array)..., K, n)
    end
end

"the chain with the numbers of a vector in the place of its parameters, one after the other"
function with_numbers(@nospecialize(chain::Chain), own::Vector{Parameter}, θ::AbstractVector)
    forms, start = IdDict{Any,Any}(), 0
    for p in own
        array = value(p.leaf)
        numbers = θ[(start + 1):(start + length(array))]
        start += length(array)
        forms[array] = reshape(numbers, size(array))
        foreach(((other, positions),) -> forms[other] = reshape(numbers[positions], size(other)), p.others)
    end
    return Flux.fmap(x -> get(forms, x, x), chain; exclude=x -> haskey(forms, x) || Flux.Functors.isleaf(x))
end

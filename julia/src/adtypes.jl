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
    plan = rebuilding(chain, own)
    J = Array{T}(undef, length(θ), K, n)
    for i in 1:n
        x, C = sample(X, i), reduce(hcat, [seed[:, i] for seed in seeds])
        J[:, :, i] = permutedims(jacobian_by(adtype, θ -> transpose(C) * vec(rebuilt(plan, θ)(x)), θ))
    end
    stops = cumsum([length(value(p.leaf)) for p in own])
    return map(own, stops) do p, stop
        array = value(p.leaf)
        p.leaf.name => reshape(J[(stop - length(array) + 1):stop, :, :], size(array)..., K, n)
    end
end

# How a chain is made from the vector of its parameters: a tree that is made once, so that what differentiates sees slices of the vector
# and constructors, and neither dictionaries nor searches.

"an array whose numbers are `range` of the vector"
struct Slice{N}
    range::UnitRange{Int}
    size::NTuple{N,Int}
end

"an array whose numbers stand at `places` of the vector, as those of `W'` beside `W`"
struct Places{N}
    places::Vector{Int}
    size::NTuple{N,Int}
end

"what has parameters inside: its parts, and what makes it of them"
struct Made{F,P}
    make::F
    parts::P
end

"what stays as it is"
struct Kept{T}
    value::T
end

rebuilt(plan::Slice, θ) = reshape(θ[plan.range], plan.size)
rebuilt(plan::Places, θ) = reshape(θ[plan.places], plan.size)
rebuilt(plan::Made, θ) = plan.make(of_parts(part -> rebuilt(part, θ), plan.parts))
rebuilt(plan::Kept, θ) = plan.value

"the plan by which [`rebuilt`](@ref) makes the chain with the numbers of a vector in the place of its parameters, one after the other"
function rebuilding(@nospecialize(chain::Chain), own::Vector{Parameter})
    forms, start = IdDict{Any,Any}(), 0
    for p in own
        array = value(p.leaf)
        forms[array] = Slice(start .+ (1:length(array)), size(array))
        foreach(((other, positions),) -> forms[other] = Places(start .+ positions, size(other)), p.others)
        start += length(array)
    end
    return rebuilding_part(chain, forms)
end

function rebuilding_part(@nospecialize(part), forms::IdDict{Any,Any})
    haskey(forms, part) && return forms[part]
    Flux.Functors.isleaf(part) && return Kept(part)
    parts, make = Flux.Functors.functor(part)
    plans = of_parts(inside -> rebuilding_part(inside, forms), parts)
    return all(plan -> plan isa Kept, values(plans)) ? Kept(part) : Made(make, plans)
end

"a function of each part, in a collection like that of the parts"
of_parts(f, parts) = map(f, parts)
of_parts(f, parts::AbstractDict) = Dict(key => f(part) for (key, part) in parts)

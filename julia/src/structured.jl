"""
    structured_factors(chain, X, reduction, names; step) -> Vector{Summand}

A factor for every site where parameters in `names` enter a chain in inference mode. A stretch of `step` samples at a time
goes through the chain, and the results of each pass go into the factors at once, so that what Zygote keeps for the backward
pass, and the errors of all outputs, stay small beside the factors.
"""
function structured_factors(@nospecialize(chain::Chain), X::AbstractArray, r::Reduction, names; step::Union{Integer,Nothing}=nothing)
    n, whole = size(X, ndims(X)), IdDict{Any,Bool}()
    # A batch, since a method of `observed` may be right for a sample alone and mix samples.
    several, trial = Recorder(whole), Recorder(whole)
    observed(chain, copy(selectdim(X, ndims(X), 1:min(n, 2))), several)
    y = observed(chain, sample(X, 1), trial)
    samples_last(several, min(n, 2)) && samples_last(trial, 1) || return plain_factors(chain, X, r, names)
    K = length(cotangents(r, y))
    found = site_factors(chain, trial, names, Extent{eltype(y)}(K, n, products(r, size(y, 1))...))
    isempty(found) && return Summand[] # no parameters: the kernel is zero
    for own in Iterators.partition(1:n, something(step, stretch(trial, K)))
        fill_stretch!(found, chain, copy(selectdim(X, ndims(X), own)), r, own, whole)
    end
    summands = Summand[Summand(f.names, finished(f.factor)) for f in found if f isa SiteFactor]
    uses = UseFactor[f for f in found if f isa UseFactor]
    for tied in unique(use.parameter for use in uses)
        push!(summands, sum_of_uses(tied, filter(use -> use.parameter === tied, uses)))
    end
    return summands
end

"""
    samples_last(seen::Recorder, n)

Whether what every site makes has `n` samples along its last axis. A tuple, as Flux's attention makes, has no such axis, and what
takes one no one input; a closure may fold positions into the axis of samples.
"""
samples_last(seen::Recorder, n::Integer) = all(size -> size !== nothing && !isempty(size) && last(size) == n, seen.sizes)

"How many numbers a stretch may allocate on its way through the chain: few enough for the garbage collector to keep up."
const STRETCH_NUMBERS = 2^23

"""
    stretch(trial, K)

How many samples go through the chain together, for K cotangents; `trial` has seen one sample. A backward pass takes
about as many numbers as all sites make, the forward pass about four times as many.
"""
stretch(trial::Recorder, K::Integer) = max(1, STRETCH_NUMBERS ÷ (sum(prod, trial.sizes) * (K + 4)))

"What decides the size of factors (K cotangents, n samples, numbers of type T) and their kind (`products`, `entries`)."
struct Extent{T<:Real}
    K::Int
    n::Int
    products::Int
    entries::Int
end

"A site by its number, which of its arrays count, the names of their parameters, and the factor that is being filled."
struct SiteFactor
    index::Int
    wanted::Vector{Bool}
    names::Vector{String}
    factor::Union{Factor,Positions,TokenPieces}
end

"""
One use of a parameter that is used several times: per-sample gradients of one array of a site, and where its numbers stand in
the parameter.
"""
struct UseFactor
    index::Int
    wanted::Vector{Bool}
    parameter::Parameter
    positions::AbstractVector{Int}
    factor::Factor
end

"the sites where parameters in `names` enter, with factors to be filled"
function site_factors(@nospecialize(chain::Chain), trial::Recorder, names, extent::Extent)
    found, owner = Union{SiteFactor,UseFactor}[], owners(chain)
    held = [Tuple{Parameter,AbstractVector{Int}}[owner[array] for array in arrays(site)] for site in trial.sites]
    all_uses = map(first, reduce(vcat, held; init=[]))
    tied(parameter) = count(==(parameter), all_uses) > 1
    for (index, (site, here)) in enumerate(zip(trial.sites, held))
        alone = Bool[p.leaf.name in names && !tied(p) for (p, _) in here]
        if any(alone)
            total = sum(length ∘ last, here[alone])
            factor = blank(site, alone, total, trial.inputs[index], trial.sizes[index], extent)
            push!(found, SiteFactor(index, alone, [p.leaf.name for (p, _) in here[alone]], factor))
        end
        for (k, (p, positions)) in enumerate(here)
            p.leaf.name in names && tied(p) || continue
            factor = blank_gradients(length(positions), extent)
            push!(found, UseFactor(index, eachindex(here) .== k, p, positions, factor))
        end
    end
    return found
end

"for every array of a network the parameter that its numbers are, and where they stand there"
function owners(@nospecialize(network))
    found = IdDict{Any,Tuple{Parameter,AbstractVector{Int}}}()
    for p in trained(network)
        found[value(p.leaf)] = (p, 1:length(value(p.leaf)))
        foreach(((array, positions),) -> found[array] = (p, positions), p.others)
    end
    return found
end

"the gradients of all uses of a parameter, summed"
function sum_of_uses(parameter::Parameter, uses)
    parts = [use.factor.d for use in uses]
    total = zeros(eltype(first(parts)), length(value(parameter.leaf)), size(first(parts))[2:3]...)
    foreach((use, part) -> view(total, use.positions, :, :) .+= part, uses, parts)
    return Summand([parameter.leaf.name], Factor(nothing, total))
end

"the site whose per-sample gradients lie as its arrays do"
site_of(::SiteFactor, site::Site) = site
site_of(::UseFactor, site::Site) = site
site_of(::UseFactor, site::Affine) = site.layer isa Dense ? site : Whole(site.layer)

"the per-sample gradients of `count` parameters, to be filled"
blank_gradients(count::Integer, e::Extent{T}) where {T} = Factor(nothing, Array{T}(undef, count, e.K, e.n))

"the factor of a site, to be filled: `x` is the site's input for one sample, and the argument after it the size of its output"
blank(::Union{Elementwise,Whole}, wanted, count, x, size, e::Extent) = blank_gradients(count, e)

function blank(site::Affine, wanted, count, x, size_out, e::Extent{T}) where {T}
    p, positions, G, _ = size(inputs(site.layer, x))
    q = size(errors(site.layer, zeros(T, size_out)), 1)
    pairs = wanted[1] && affine_rule(positions, p, q, G, e.products, e.entries) === :pairs
    pairs || return blank_gradients(count, e)
    rows = p + has_bias(wanted)
    at = [Factor(Array{T}(undef, rows, e.n), Array{T}(undef, q, e.K, e.n)) for _ in 1:positions]
    return positions == 1 ? only(at) : Positions(at)
end

function blank(site::Table, wanted, count, tokens, size_out, e::Extent{T}) where {T}
    q, positions = size_out[1], length(tokens)
    rule = lookup_rule(positions, columns(site), q, e.products, e.entries)
    return rule === :tokens ? TokenPieces{T}(q, e.K) : blank_gradients(count, e)
end

"how many columns a table has"
columns(site::Table) = size(site.layer.weight, 2)

"whether the second parameter of a site, the bias, is wanted"
has_bias(wanted) = length(wanted) == 2 && wanted[2]

"""
    fill_stretch!(found, chain, X, reduction, own, whole)

Fill the factors for the samples `X`, whose numbers are `own`: one forward pass, one backward pass per cotangent. `whole` is
that of [`Recorder`](@ref).
"""
function fill_stretch!(found, @nospecialize(chain::Chain), X::AbstractArray, r::Reduction, own, whole)
    seen = Recorder(whole)
    y, chain_back = observed_pullback(chain, X, seen)
    sites = Site[site_of(f, seen.sites[f.index]) for f in found]
    entered = Any[write_input!(f.factor, site, seen.inputs[f.index], own) for (f, site) in zip(found, sites)]
    errors_of = [Array{eltype(y)}[] for _ in found]
    for seed in cotangents(r, y)
        fill!(seen.errors, nothing)
        chain_back(seed)
        for (f, errors) in zip(found, errors_of)
            d = seen.errors[f.index]
            # An output may not depend on a site: its error there is zero.
            push!(errors, d === nothing ? zeros(eltype(y), seen.sizes[f.index]) : d)
        end
    end
    for (f, site, input, errors) in zip(found, sites, entered, errors_of)
        write_errors!(f.factor, site, f.wanted, input, errors, own)
    end
    return found
end

"write the part of a factor that comes from the input of a site; returns what its errors will be multiplied by"
write_input!(f::Factor{Nothing}, site::Union{Elementwise,Whole}, x, own) = x
write_input!(f::Factor{Nothing}, site::Affine, x, own) = inputs(site.layer, x)
write_input!(f::Factor{Nothing}, site::Affine{<:Convolution}, x, own) = x # windows take many times as much
function write_input!(f::Factor{<:Matrix}, site::Affine, x, own)
    return write_rows!(f, view(inputs(site.layer, x), :, 1, 1, :), own)
end
function write_input!(f::Positions, site::Affine, x, own)
    a = inputs(site.layer, x)
    foreach((at, t) -> write_rows!(at, view(a, :, t, 1, :), own), f.at, axes(a, 2))
end
function write_input!(f::Factor{Nothing}, site::Table, tokens, own)
    fill!(view(f.d, :, :, own), 0)
    return by_sample(tokens, own)
end

"tokens, or what was made of them, with one axis for those of a sample"
by_sample(tokens, own) = reshape(tokens, :, length(own))
by_sample_and_feature(d, own) = reshape(d, size(d, 1), :, length(own))

"inputs at one position, and ones below them if there is a bias"
function write_rows!(f::Factor{<:Matrix}, a::AbstractMatrix, own)
    view(f.a, axes(a, 1), own) .= a
    view(f.a, (size(a, 1) + 1):size(f.a, 1), own) .= 1
    return nothing
end

"write the part of a factor that comes from the errors, one for each cotangent"
function write_errors!(f, site::Site, wanted, input, errors, own)
    foreach((k, d) -> write_error!(f, site, wanted, input, d, k, own), eachindex(errors), errors)
end

# The windows of a sample are made once for all cotangents.
function write_errors!(f::Factor{Nothing}, site::Affine{<:Convolution}, wanted, x, errors, own)
    c = site.layer
    G = groups(c)
    entries, out = length(c.weight) ÷ size(c.weight, ndims(c.weight)), size(c.weight, ndims(c.weight)) ÷ G
    place(i, k, g) = reshape(view(f.d, ((g - 1) * entries * out + 1):(g * entries * out), k, own[i]), out, entries)
    wanted[1] && kernel_gradients!(place, x, errors, conv_dims(c, x))
    has_bias(wanted) || return nothing
    biases = ((wanted[1] ? length(c.weight) : 0) + 1):size(f.d, 1)
    foreach((k, d) -> view(f.d, biases, k, own) .= over_space(d), eachindex(errors), errors)
end

"write the part of a factor that comes from the errors `d` of cotangent `k`"
function write_error!(f::Factor{Nothing}, site::Union{Elementwise,Whole}, wanted, x, d, k, own)
    view(f.d, :, k, own) .= reduce(vcat, collect(gradients(site, x, d))[wanted])
    return nothing
end

function write_error!(f::Factor{<:Matrix}, site::Affine, wanted, ::Nothing, error, k, own)
    view(f.d, :, k, own) .= view(errors(site.layer, error), :, 1, 1, :)
    return nothing
end

function write_error!(f::Positions, site::Affine, wanted, ::Nothing, error, k, own)
    d = errors(site.layer, error)
    for (t, at) in enumerate(f.at)
        view(at.d, :, k, own) .= view(d, :, t, 1, :)
    end
end

# Per-sample gradients sum_t d_t a_t' of all groups, and sum_t d_t for the bias.
function write_error!(f::Factor{Nothing}, site::Affine, wanted, a, error, k, own)
    d = errors(site.layer, error)
    p, q = size(a, 1), size(d, 1)
    weights = wanted[1] ? p * q * size(a, 3) : 0
    for (i, j) in enumerate(own), g in axes(a, 3)
        here = view(d, :, :, g, i)
        if wanted[1]
            target = reshape(view(f.d, ((g - 1) * p * q + 1):(g * p * q), k, j), q, p)
            mul!(target, here, transpose(view(a, :, :, g, i)))
        end
        has_bias(wanted) && sum!(view(f.d, (weights + (g - 1) * q + 1):(weights + g * q), k, j), here)
    end
end

function write_error!(f::Factor{Nothing}, site::Table, wanted, tokens, d, k, own)
    d = by_sample_and_feature(d, own)
    whole = reshape(view(f.d, :, k, own), size(d, 1), columns(site), length(own))
    for i in axes(tokens, 2), (t, token) in enumerate(view(tokens, :, i))
        token == padding(site.layer) && continue
        view(whole, :, token, i) .+= view(d, :, t, i)
    end
end

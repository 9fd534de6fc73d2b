"""
    structured_factors(chain, X, reduction, names; step) -> Vector{Summand}

A factor for every place where parameters in `names` enter a chain in inference mode. A stretch of `step` samples at a time
goes through the chain, so that what Zygote keeps for the way back stays small beside the factors.
"""
function structured_factors(chain::Chain, X::AbstractArray, r::Reduction, names; step::Integer=stretch(chain, X, r))
    stretches = collect(Iterators.partition(1:size(X, ndims(X)), step))
    length(stretches) == 1 && return stretch_factors(chain, X, r, names)
    parts = [stretch_factors(chain, copy(selectdim(X, ndims(X), own)), r, names) for own in stretches]
    starts = first.(stretches) .- 1
    return map(eachindex(first(parts))) do index
        pieces = [part[index].factor for part in parts]
        Summand(first(parts)[index].names, joined(first(pieces), pieces, starts))
    end
end

"Errors of all outputs at the widest place that are held at a time; what comes with them is many times as much."
const STRETCH_NUMBERS = 2^22

"how many samples go through the chain together"
function stretch(chain::Chain, X::AbstractArray, r::Reduction)
    recorder = Recorder()
    y = observed(chain, sample(X, 1), recorder)
    widest = maximum(prod, recorder.sizes; init=1)
    return max(1, STRETCH_NUMBERS ÷ (widest * length(cotangents(r, y))))
end

"one factor of all samples, from those of stretches that begin behind `starts`; the first decides of what kind"
function joined(::Factor, pieces, starts)
    inputs = first(pieces).a === nothing ? nothing : reduce(hcat, [piece.a for piece in pieces])
    return Factor(inputs, cat((piece.d for piece in pieces)...; dims=3))
end
function joined(whole::Positions, pieces, starts)
    return Positions([joined(at, [piece.at[t] for piece in pieces], starts) for (t, at) in enumerate(whole.at)])
end
function joined(::Tokens{T}, pieces, starts) where {T}
    at = Dict{Int,Tuple{Vector{Int},Array{T,3}}}()
    for (piece, start) in zip(pieces, starts), (token, (own, gradients)) in piece.at
        samples, d = get(at, token, (Int[], similar(gradients, size(gradients, 1), size(gradients, 2), 0)))
        at[token] = ([samples; own .+ start], cat(d, gradients; dims=3))
    end
    return Tokens(at)
end

"""
    stretch_factors(chain, X, reduction, names) -> Vector{Summand}

The factors of some samples: one forward pass writes the places down, one backward pass per cotangent gives the errors
there.
"""
function stretch_factors(chain::Chain, X::AbstractArray, r::Reduction, names)
    recorder = Recorder()
    y = observed(chain, X, recorder)
    isempty(recorder.sites) && return Summand[] # no parameters: the kernel is zero
    probes = Tuple(zeros(eltype(y), size...) for size in recorder.sizes)
    _, back = Zygote.pullback(p -> observed(chain, X, Probes(p, Ref(0))), probes)
    pulled = [only(back(seed)) for seed in cotangents(r, y)]
    found, taken = Summand[], 0
    own = first.(parameters(chain))
    for (index, (site, x)) in enumerate(zip(recorder.sites, recorder.inputs))
        here = own[(taken + 1):(taken + parameter_count(site))]
        wanted = in(names).(here)
        taken += length(here)
        any(wanted) || continue
        # An output may not depend on a place: its error there is zero.
        errors = [g === nothing || g[index] === nothing ? probes[index] : g[index] for g in pulled]
        push!(found, Summand(here[wanted], factor(site, wanted, x, errors, products(r, size(y, 1))...)))
    end
    return found
end

function factor(site::ElementSite, wanted, x, errors, products, entries)
    rows = [reduce(vcat, collect(site.gradients(x, d))[wanted]) for d in errors]
    return Factor(nothing, permutedims(stack(rows), (1, 3, 2)))
end

function factor(site::AffineSite, wanted, x, errors, products, entries)
    bias = site.count == 2 && wanted[2]
    a = site.inputs(x)
    ds = site.errors.(errors)
    p, T, G, n = size(a)
    q = size(first(ds), 1)
    if wanted[1] && affine_rule(T, p, q, G, products, entries) === :pairs
        at = map(1:T) do t
            inputs = a[:, t, 1, :]
            Factor(bias ? vcat(inputs, fill!(similar(inputs, 1, n), 1)) : inputs,
                permutedims(stack([d[:, t, 1, :] for d in ds]), (1, 3, 2)))
        end
        return T == 1 ? only(at) : Positions(at)
    end
    return Factor(nothing, weight_gradients(a, ds, wanted[1], bias))
end

function factor(site::TableSite, wanted, tokens, errors, products, entries)
    q, T, n = size(first(errors))
    lookup_rule(T, site.columns, q, products, entries) === :tokens && return shared_tokens(tokens, errors)
    gradient = fill!(similar(first(errors), q, site.columns, length(errors), n), 0)
    for (k, d) in enumerate(errors), i in 1:n, t in 1:T
        gradient[:, tokens[t, i], k, i] .+= view(d, :, t, i)
    end
    return Factor(nothing, reshape(gradient, :, length(errors), n))
end

"for every token its samples and their gradients, from tokens (T, n) and errors (q, T, n)"
function shared_tokens(tokens::AbstractMatrix{<:Integer}, errors::Vector{<:AbstractArray{T,3}}) where {T}
    samples = Dict{Int,Vector{Int}}()
    for i in axes(tokens, 2), token in view(tokens, :, i)
        own = get!(Vector{Int}, samples, token)
        (isempty(own) || last(own) != i) && push!(own, i)
    end
    at = Dict(token => (own, zeros(T, size(first(errors), 1), length(errors), length(own))) for (token, own) in samples)
    for i in axes(tokens, 2), (t, token) in enumerate(view(tokens, :, i))
        own, gradients = at[token]
        place = searchsortedfirst(own, i)
        for (k, d) in enumerate(errors)
            gradients[:, k, place] .+= view(d, :, t, i)
        end
    end
    return Tokens(at)
end

"per-sample gradients sum_t d_t a_t' of all groups, and sum_t d_t for the bias, (P, K, n)"
function weight_gradients(a::AbstractArray, ds::Vector, weight::Bool, bias::Bool)
    p, T, G, n = size(a)
    q = size(first(ds), 1)
    P = q * G * (p * weight + bias)
    result = similar(first(ds), P, length(ds), n)
    for i in 1:n, (k, d) in enumerate(ds), g in 1:G
        own = view(d, :, :, g, i)
        if weight
            target = reshape(view(result, ((g - 1) * p * q + 1):(g * p * q), k, i), q, p)
            mul!(target, own, transpose(view(a, :, :, g, i)))
        end
        if bias
            offset = weight * p * q * G + (g - 1) * q
            sum!(view(result, (offset + 1):(offset + q), k, i), own)
        end
    end
    return result
end
